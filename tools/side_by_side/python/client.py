"""The Python client in the comparison: the batching WriteApi as its README shows it, with all three callbacks set.
What it is told goes to the journal, whose words are in ../README.md."""
import argparse, importlib.metadata, json, math, time

from influxdb_client import InfluxDBClient, Point, WriteOptions

BASE, STEP = 1_700_000_000_000_000_000, 1_000_000

parser = argparse.ArgumentParser()
parser.add_argument("--url"), parser.add_argument("--journal")
parser.add_argument("--spool", help="not known to this client")
for name, default in dict(first=0, burst=0, points=0, rate=100, batch=100, flush_ms=1000, every=100).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
parser.add_argument("--special", default="none")
args = parser.parse_args()
journal = open(args.journal, "a", buffering=1)


def note(*words):
    journal.write(" ".join(map(str, words)) + "\n")


def numbers(data):
    """The numbers of the points of a batch."""
    text = data.decode() if isinstance(data, bytes) else data
    times = [line.rsplit(" ", 1)[-1] for line in text.split("\n") if line.strip()]
    return " ".join(str((int(t) - BASE) // STEP) for t in times)


def put(i):
    measurement, value = "side", i % 1000 / 2
    if i % args.every == args.every // 2:
        if args.special == "conflict":
            value = "broken"
        elif args.special == "poison":
            measurement = "poison"
        elif args.special == "nan":
            value = math.inf if i % (2 * args.every) >= args.every else math.nan
    point = Point(measurement).tag("device", f"d{i % 10}").field("value", value).time(BASE + i * STEP)
    before = time.perf_counter()
    try:
        api.write("side", "side", point)
    except Exception as error:
        note("r", i, str(error).replace("\n", " "))
    calls.append(time.perf_counter() - before)


calls = []
client = InfluxDBClient(url=args.url, token="side-token", org="side")
api = client.write_api(
    WriteOptions(batch_size=args.batch, flush_interval=args.flush_ms),
    success_callback=lambda conf, data: None,
    error_callback=lambda conf, data, error: note("f", numbers(data)),
    retry_callback=lambda conf, data, error: note("d", numbers(data)),
)
note("s")
i = args.first
for i in range(args.first, args.first + args.burst):
    put(i)
note("b")
start, began = args.first + args.burst, time.perf_counter()
for n in range(args.points):
    time.sleep(max(0, began + n / args.rate - time.perf_counter()))
    put(start + n)
    note("w", start + n)

calls.sort()
result = dict(client="influxdb-client (Python)", version=importlib.metadata.version("influxdb-client"),
              next=start + args.points)
if calls:
    result.update(longest_ms=calls[-1] * 1000, p999_ms=calls[(len(calls) - 1) * 999 // 1000] * 1000)
note("c", json.dumps(result))
before = time.perf_counter()
said = "nothing: close returns no value"
try:
    api.close()
    client.close()
except Exception as error:
    said = str(error)
print(json.dumps(dict(result, close_ms=(time.perf_counter() - before) * 1000, close_says=said)))
