#!/usr/bin/env python3
"""Fills a store with every type in every layer and compares what tools/read_store.py reads with what the program says.

Usage: campaign_format.py PROGRAM READER PYTHON
"""
import json, re, subprocess, sys, tempfile
from datetime import datetime, timezone

PROGRAM, READER, PYTHON = sys.argv[1:4]


def run(*arguments, **more):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, **more)
    if done.returncode not in (0, 3):
        sys.exit(f"campaign format: {arguments}: {done.stderr}")
    return done.stdout


def nanos(text):
    match = re.fullmatch(r"(.*?)(?:\.(\d+))?Z", text)
    seconds = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc).timestamp()
    return int(seconds) * 10**9 + int((match[2] or "0").ljust(9, "0"))


def lines(layer):
    for i in range(6000):
        time = 1_700_000_000_000_000_000 + layer * 10**14 + i * 15 * 10**9 + i % 7 * 10**6
        yield f"m,s={i % 3},room=bad\\ {layer} f={i % 97 / 10},g={(i * 7919 % 1000) ** 0.5},i={i - 3000}i,u={2**63 + i}u,b={'true' if i % 5 else 'false'},t=\"w{i % 11} \u00e9\" {time}"


with tempfile.TemporaryDirectory() as folder:
    run("demo", "--once", "--data", folder)
    write = lambda layer: run("write", "--data", folder, input="\n".join(lines(layer)))
    write(0)
    run("compact", "--data", folder)
    write(1)
    run("delete", "--data", folder, "-m", "m", "-f", "f", "-t", "s=1", "--start", "2023-11-14T23:00:00Z", "--stop", "2023-11-15T08:00:00Z")
    write(0)  # again: repeated readings, the later ones count
    told = {}
    answer = json.loads(run("query", "--json", "--data", folder, "--limit", "100000000"))
    for row in answer["rows"]:
        key = row["measurement"], json.dumps(row["tags"], sort_keys=True), row["field"], nanos(row["time"])
        told[key] = row["value"]
    read = {}
    output = subprocess.run([PYTHON, READER, folder], capture_output=True, text=True)
    if output.returncode:
        sys.exit(f"campaign format: {output.stderr}")
    for line in output.stdout.splitlines():
        row = json.loads(line)
        read[row["measurement"], json.dumps(row["tags"], sort_keys=True), row["field"], row["time"]] = row["value"]
    wrong = [key for key in told.keys() | read.keys() if told.get(key) != read.get(key)]
    if wrong or not told:
        key = wrong[0] if wrong else None
        sys.exit(f"campaign format: {len(wrong)} of {len(told)} values differ, first {key}: {told.get(key)!r} {read.get(key)!r}")
    print(f"campaign format: {len(told)} values read back by {READER.rsplit('/', 1)[-1]}, all equal")
