#!/usr/bin/env python3
"""Puts clients of InfluxDB 2 through the same outages, each against a hostile server of its own on loopback, and counts what
each lost without telling. Needs nothing but Python; the clients are built beforehand, as README.md says."""
import argparse, concurrent.futures, json, os, pathlib, platform, re, shutil, signal, subprocess, threading, time

from server import Server

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASE, STEP = 1_700_000_000_000_000_000, 1_000_000

# A client that has not ended so long after it was asked to is killed, as a service manager does.
STOP_SECONDS = 90
# Longer waits than this are a mistake of this program's.
START_SECONDS = 60

# name: what the program writes, and what happens to it and its server. A step is (seconds, after what word of the journal, what):
# "s" the stream began, "b" the burst is over; the steps follow one another.
SCENARIOS = {
    "outage": dict(
        about="nobody listens for 10 s in the middle of a stream",
        write=dict(points=4800, rate=200),
        steps=[(4, "s", "closed"), (10, None, "ok")]),
    "unavailable": dict(
        about="503 with Retry-After: 3 for 10 s",
        write=dict(points=4800, rate=200),
        steps=[(4, "s", "unavailable"), (10, None, "ok")]),
    "stalled": dict(
        about="requests are taken, and answered only after up to 15 s, all at once",
        write=dict(points=5200, rate=200),
        steps=[(4, "s", "stalled"), (15, None, "ok")]),
    "conflict": dict(
        about="a line in 250 has a field of another type: 422, partial write, the other lines are stored",
        write=dict(points=2000, rate=200, special="conflict", every=250),
        steps=[]),
    "poison": dict(
        about="a line in 500 cannot be read: 400, and nothing of its request is stored",
        write=dict(points=2000, rate=200, special="poison", every=500),
        steps=[]),
    "kill": dict(
        about="kill -9 after 5 s of an outage, then a second life",
        write=dict(points=10_000, rate=200),
        steps=[(4, "s", "closed"), (5, None, "kill"), (0, None, "ok")],
        again=dict(points=1200, rate=200)),
    "close": dict(
        about="closed after 4 s of an outage, then a second life",
        write=dict(points=1600, rate=200),
        steps=[(4, "s", "closed"), (0, "end", "ok")],
        again=dict(points=1200, rate=200)),
    "nan": dict(
        about="a value in 10 is NaN or infinite",
        write=dict(points=1000, rate=200, special="nan", every=10),
        steps=[]),
    "unauthorized": dict(
        about="401 for 8 s: the token was revoked, and is valid again",
        write=dict(points=4000, rate=200),
        steps=[(4, "s", "unauthorized"), (8, None, "ok")]),
    "long": dict(
        about="nobody listens for 200 s",
        write=dict(points=11_250, rate=50),
        steps=[(5, "s", "closed"), (200, None, "ok")]),
    "full": dict(
        about="200,000 points at once while nobody listens, then 10 s of a stream while somebody does",
        write=dict(burst=200_000, points=2000, rate=200),
        start="closed", steps=[(1, "b", "ok")]),
}
# Alone on the machine, since it is busy then.
ALONE = {"full"}


def commands(work, ours):
    """What starts each client."""
    script = work / "javascript" / "client.js"
    ours = str(ours)
    return {
        "Go": [str(work / "go_client")],
        "Python": [str(work / "venv" / "bin" / "python"), str(HERE / "python" / "client.py")],
        "JavaScript": ["node", str(script)],
        "Gray Logic": [ours],
        "Gray Logic, no spool": [ours],
    }


class Life:
    """A program from its start to its end."""

    def __init__(self, command, folder, name, options):
        self.journal, self.log = folder / f"{name}.journal", folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        self.journal.touch()
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        with open(self.out, "wb") as out, open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command + words + ["--journal", str(self.journal)], stdout=out, stderr=log, cwd=folder)
        self.peak_kib = 0
        self.read_to, self.seen = 0, {}
        self.killed_late = False
        self.watcher = threading.Thread(target=self.watch_memory, daemon=True)
        self.watcher.start()

    def watch_memory(self):
        while self.process.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
                found = re.search(r"VmHWM:\s+(\d+)", status)
                self.peak_kib = max(self.peak_kib, int(found[1]) if found else 0)
            except OSError:
                pass
            time.sleep(0.05)

    def look(self, word):
        """When the journal first had that word; None if it has not."""
        with open(self.journal, "rb") as file:
            file.seek(self.read_to)
            text = file.read()
        end = text.rfind(b"\n") + 1
        self.read_to += end
        for line in text[:end].split(b"\n"):
            if line[:1] in (b"s", b"b", b"c"):
                self.seen.setdefault(line[:1].decode(), time.monotonic())
        return self.seen.get(word)

    def wait_for(self, word, seconds):
        until = time.monotonic() + seconds
        while (at := self.look(word)) is None:
            if self.process.poll() is not None and self.look(word) is None:
                raise RuntimeError(f"the program ended before {word!r}: {self.log.read_text()[-2000:]}")
            if time.monotonic() > until:
                self.process.kill()
                raise RuntimeError(f"no {word!r} in {self.journal} within {seconds} s")
            time.sleep(0.01)
        return at

    def wait_end(self, seconds):
        """Waits for the stream, however long that takes within reason, and then for the close, within STOP_SECONDS."""
        if self.process.poll() is None:
            self.wait_for("c", seconds)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.killed_late = True
            self.process.kill()
            self.process.wait()
        self.watcher.join()

    def result(self):
        """What the program printed; what it noted before its close, if it printed nothing."""
        printed = self.out.read_text().strip()
        if printed:
            return json.loads(printed.splitlines()[-1])
        noted = [line[2:] for line in self.journal.read_text().splitlines() if line.startswith("c ")]
        return json.loads(noted[0]) if noted else {}


def run(client, command, name, work):
    """One client in one scenario."""
    scenario = SCENARIOS[name]
    folder = work / "runs" / name / client.replace(" ", "-").replace(",", "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    server = Server(scenario.get("start", "ok"))
    spool = "off" if "no spool" in client else folder / "spool"
    write = scenario["write"]
    options = {"url": server.url(), "spool": spool, "batch": 100, "flush-ms": 1000}
    life = Life(command, folder, "first", options | write)
    # A client that blocks makes the stream longer.
    seconds = write["points"] / write["rate"] * 2 + 240
    last = time.monotonic()
    try:
        for after, word, what in scenario["steps"]:
            if word == "end":
                life.wait_end(seconds)
                last = time.monotonic()
            elif word:
                last = life.wait_for(word, START_SECONDS if word == "s" else seconds)
            last += after
            time.sleep(max(0, last - time.monotonic()))
            if what == "kill":
                life.process.send_signal(signal.SIGKILL)
                life.process.wait()
                life.watcher.join()
            else:
                server.set(what)
        lives = [life]
        if life.process.returncode is None:
            life.wait_end(seconds)
        if "again" in scenario:
            begin = judge_written(life, 0)[1]
            again = Life(command, folder, "second", options | scenario["again"] | {"first": begin})
            lives.append(again)
            again.wait_end(seconds)
        return judge(client, name, lives, server)
    finally:
        if life.process.poll() is None:
            life.process.kill()
        server.set("closed")


def judge_written(life, first):
    """The numbers of the points whose call returned without an error, and the number of the next."""
    end, refused = first, set()
    for line in life.journal.read_text().splitlines():
        if line.startswith("w "):
            end = max(end, int(line[2:]) + 1)
        elif line.startswith("c "):
            end = max(end, json.loads(line[2:])["next"])
        elif line.startswith("r "):
            refused.add(int(line.split(" ", 2)[1]))
    return set(range(first, end)) - refused, end, refused


def judge(client, name, lives, server):
    written, failed, delayed, refused = set(), set(), set(), set()
    counted, errors, begin, log_lines = 0, 0, 0, 0
    for life in lives:
        kept = 0
        accepted, begin, rejected = judge_written(life, begin)
        written |= accepted
        refused |= rejected
        for line in life.journal.read_text().splitlines():
            word, _, rest = line.partition(" ")
            if word == "f":
                failed.update(map(int, rest.split()))
            elif word == "d":
                delayed.update(map(int, rest.split()))
            elif word == "n":
                counted += int(rest)
            elif word == "e":
                errors += 1
            elif word == "k":
                kept = int(rest)
        log_lines += len(life.log.read_text(errors="replace").splitlines())
    counted_all = counted
    stored = {(time - BASE) // STEP for _, time in server.stored}
    lost = written - stored
    unnamed = lost - failed
    counted = min(counted, len(unnamed))
    kept = min(kept, len(unnamed) - counted)
    silent = len(unnamed) - counted - kept
    results = [life.result() for life in lives]
    numbers = lambda key: [r[key] for r in results if r.get(key) is not None]
    return {
        "scenario": name, "client": client, "version": results[-1].get("version"),
        "written": len(written), "stored": len(stored & written), "not_stored": len(lost), "lost_in_silence": silent,
        # Of those: named by a callback that said they would be tried again, and by none afterwards.
        "lost_told_as_delayed": len(unnamed & delayed),
        # Errors told without saying which points, or how many.
        "errors_without_points": errors,
        # Neither stored nor lost: on the disk, for the next start, as the last close said.
        "kept": kept,
        "told": len(lost & failed) + counted + len(refused), "refused_by_call": len(refused),
        "told_but_stored": len(failed & stored) + counted_all - counted,
        "twice": sum(server.stored.values()) - len(server.stored),
        "stored_but_refused": len(stored - written),
        "longest_ms": max(numbers("longest_ms"), default=None), "p999_ms": max(numbers("p999_ms"), default=None),
        "close_ms": numbers("close_ms"), "close_says": numbers("close_says"),
        "killed_after_stop_seconds": sum(life.killed_late for life in lives),
        "exit": [life.process.returncode for life in lives],
        "peak_mib": round(max(life.peak_kib for life in lives) / 1024, 1),
        "log_lines": log_lines, "answers": dict(server.answers),
    }


def cell(r):
    silent = str(r["lost_in_silence"])
    if r["lost_in_silence"] and r["errors_without_points"]:
        silent += f" (and {r['errors_without_points']} errors without points)"
    late = ", killed" if r["killed_after_stop_seconds"] else ""
    late += f", {r['kept']} kept" if r["kept"] else ""
    return f"{'**' + silent + '**' if r['lost_in_silence'] else silent} / {r['told']} / {r['twice']}{late}"


def number(value):
    return "?" if value is None else f"{value:.3f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def tables(results):
    """Three tables in Markdown."""
    clients = list(dict.fromkeys(r["client"] for r in results))
    names = [name for name in SCENARIOS if any(r["scenario"] == name for r in results)]
    by = {(r["scenario"], r["client"]): r for r in results}

    def table(title, show):
        out = [title, "", "| scenario | " + " | ".join(clients) + " |", "| --- " * (len(clients) + 1) + "|"]
        for name in names:
            out.append(f"| {name} | " + " | ".join(show(by[name, c]) if (name, c) in by else "" for c in clients) + " |")
        return "\n".join(out)

    return "\n\n".join([
        table("Points lost in silence / told as failed / stored more than once:", cell),
        table("Longest call that writes, and 99.9 % of them, in ms:",
              lambda r: f"{number(r['longest_ms'])}, {number(r['p999_ms'])}"),
        table("Most memory in MiB, and seconds that closing took:",
              lambda r: f"{r['peak_mib']:.0f}, " + ("; ".join(f"{ms / 1000:.1f}" for ms in r["close_ms"]) or "-")),
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="the folder with the built clients; runs go there too")
    parser.add_argument("--ours", type=pathlib.Path, default=ROOT / "target/release/examples/side_by_side",
                        help="the example side_by_side of graylogic-influxdb, built with --release")
    parser.add_argument("--json", type=pathlib.Path, help="where all counts go")
    parser.add_argument("--clients", help="separated by semicolons; all by default")
    parser.add_argument("--scenarios", help="comma-separated, of: " + ", ".join(SCENARIOS))
    args = parser.parse_args()
    work = args.work.resolve()
    known = commands(work, args.ours.resolve())
    clients = args.clients.split(";") if args.clients else list(known)
    names = args.scenarios.split(",") if args.scenarios else list(SCENARIOS)
    for wrong in [c for c in clients if c not in known] + [n for n in names if n not in SCENARIOS]:
        parser.error(f"{wrong!r} is unknown; the clients are {'; '.join(known)}, the scenarios {', '.join(SCENARIOS)}")
    if "JavaScript" in clients and (work / "javascript").is_dir():
        shutil.copy(HERE / "javascript" / "client.js", work / "javascript")
    for client in clients:
        if not all(shutil.which(part) or os.path.exists(part) for part in known[client]):
            parser.error(f"{client}: {known[client]} is not there; README.md says how to install it, --clients leaves it out")

    results, wrong = [], []

    def one(job):
        name, client = job
        began = time.monotonic()
        try:
            result = run(client, known[client], name, work)
        except Exception as error:
            wrong.append(f"{name}, {client}: {error}")
            print(wrong[-1], flush=True)
            return
        results.append(result)
        print(f"{name}, {client}: {cell(result)} ({time.monotonic() - began:.0f} s)", flush=True)

    # The long outage runs beside the others, the clients side by side: at these rates the machine is idle.
    beside = [name for name in names if name == "long"]
    with concurrent.futures.ThreadPoolExecutor(2 * len(clients)) as pool:
        long = [pool.submit(one, (name, client)) for name in beside for client in clients]
        for name in names:
            if name not in ALONE and name not in beside:
                list(pool.map(one, [(name, client) for client in clients]))
        concurrent.futures.wait(long)
    for name in names:
        if name in ALONE:
            for client in clients:
                one((name, client))

    order = {(n, c): (i, j) for i, n in enumerate(SCENARIOS) for j, c in enumerate(known)}
    results.sort(key=lambda r: order[r["scenario"], r["client"]])
    if args.json:
        machine = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
        args.json.write_text(json.dumps({"machine": machine, "results": results, "wrong": wrong}, indent=1) + "\n")
    print("\n" + tables(results))
    print("\nversions: " + ", ".join(dict.fromkeys(f"{r['client']} {r['version']}" for r in results)))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
