#!/usr/bin/env python3
"""Reads every value of a Gray Logic store without Gray Logic: docs/format.md in one page of Python.

Needs the package pcodec (pip install pcodec); the store must not be open. Usage: read_store.py FOLDER
Prints one JSON object a line: bucket, measurement, tags, field, time (nanoseconds), value.
"""
import glob, json, os, sqlite3, struct, sys
import numpy
from pcodec import wrapped

TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        assert self.at <= len(self.data), "cut short"
        return self.data[self.at - n:self.at]

    def u8(self):
        return self.take(1)[0]

    def i64(self):
        return struct.unpack("<q", self.take(8))[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def zigzag(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def bytes(self):
        return self.take(self.varint())

    def text(self):
        return self.bytes().decode()


def signed(v):
    return (v + 2**63) % 2**64 - 2**63


def column(data, n):
    """The numbers of a column: unsigned, or floats of kinds 5 and 6."""
    r = Reader(data)
    kind = r.u8()
    if kind == 0:
        return [r.varint()] * n
    if kind == 1:
        out = []
        while len(out) < n:
            value = r.varint()
            out += [value] * r.varint()
        return out
    if kind == 2:
        return [r.varint() for _ in range(n)]
    if kind == 6:
        return list(struct.unpack(f"<{n}d", r.take(8 * n)))
    dtype = {3: "u32", 4: "u64", 5: "f64"}[kind]
    rest = data[1:]
    file, used = wrapped.FileDecompressor.new(rest)
    chunk, more = file.chunk_decompressor(rest[used:], dtype)
    out = numpy.zeros(n, {"u32": numpy.uint32, "u64": numpy.uint64, "f64": numpy.float64}[dtype])
    chunk.read_page_into(rest[used + more:], n, out)
    return out.tolist()


def times(r, n):
    kind, first, unit = r.u8(), r.i64(), r.varint()
    if kind == 2:
        return [signed(first + unit * t) for t in column(r.bytes(), n)]
    step, skipped, gaps, at = r.varint(), 0, {}, 0
    for _ in range(r.varint()):
        at += r.varint()
        gaps[at] = r.varint()
    least, residuals = r.zigzag(), column(r.bytes(), n)
    out = []
    for i, residual in enumerate(residuals):
        skipped += gaps.get(i, 0)
        out.append(signed(first + unit * ((i + skipped) * step + least + residual)))
    return out


def values(r, n):
    kind = r.u8()
    if kind == 1:
        power, least = 10.0 ** r.u8(), r.zigzag()
        return [(least + v) / power for v in column(r.bytes(), n)]
    if kind == 2:
        data = r.bytes()
        numbers = column(data, n)
        return [struct.unpack("<d", struct.pack("<Q", v))[0] for v in numbers] if data[0] == 2 else numbers
    if kind == 3:
        least = r.zigzag()
        return [signed(least + v) for v in column(r.bytes(), n)]
    if kind == 4:
        least = r.varint()
        return [least + v for v in column(r.bytes(), n)]
    if kind == 5:
        return [v != 0 for v in column(r.bytes(), n)]
    words = [r.text() for _ in range(r.varint())]
    return [words[v] for v in column(r.bytes(), n)]


SHARED_LOG_ID = struct.unpack("<Q", b"store\0\0\0")[0]


def identity(db):
    """The identity that segments of the hot log carry, and whether they may carry that of version 1."""
    if db.execute("PRAGMA user_version").fetchone()[0] == 1:
        return SHARED_LOG_ID, True
    mark = db.execute("SELECT mark FROM meta WHERE id = 1").fetchone()[0]
    assert crc32c(mark[:-4]) == struct.unpack("<I", mark[-4:])[0], "the mark is damaged"
    version, flags, number = struct.unpack_from("<BBQ", mark)
    assert version == 1
    return number, bool(flags & 1)


def ledger(db):
    """The numbers of the chunks that count, by week and series; None in version 1."""
    if db.execute("PRAGMA user_version").fetchone()[0] == 1:
        return None
    listed = {}
    for period, series, data, crc in db.execute("SELECT period, series, bytes, crc FROM ledger"):
        assert crc32c(struct.pack("<qq", period, series) + data) == crc, "the ledger is damaged"
        r, number = Reader(data), 0
        r.varint(), r.varint()
        for _ in range(r.varint()):
            number += r.varint()
            listed.setdefault((period, series), set()).add(number)
            r.varint(), r.varint(), r.varint()
    return listed


def heading(r):
    """Passes over the heading of a record; the names of buckets and the deletions in it are in the store file too."""
    flags = r.u8()
    if flags & 1:
        r.bytes()
    for _ in range(r.varint()):
        r.varint(), r.text(), r.zigzag()
    for _ in range(r.varint()):
        r.varint(), r.zigzag(), r.zigzag(), r.varint()


def records(folder, own, shared):
    """The records of the hot log: sequence and payload of each good frame."""
    segments = []
    for path in sorted(glob.glob(os.path.join(folder, "log", "*.seg"))):
        data = open(path, "rb").read()
        log_id, first = struct.unpack_from("<QQ", data, 16)
        if log_id != own and not (shared and log_id == SHARED_LOG_ID):
            continue
        segments.append((data, struct.pack("<Q", log_id), first))
    expected = 0
    for i, (data, log_id, _) in enumerate(segments):
        limit = min((s[2] for s in segments[i + 1:]), default=2**64)
        at = 64
        while (at := data.find(b"\xf7GL\xa5", at)) >= 0:
            length, _, _, first, crc, count = struct.unpack_from("<IHHQII", data.ljust(at + 32, b"\0"), at + 8)
            payload = data[at + 32:at + 32 + length]
            good = struct.unpack_from("<I", data.ljust(at + 32, b"\0"), at + 4)[0] == crc32c(data[at + 8:at + 32])
            good = good and crc == crc32c(log_id + struct.pack("<Q", first) + payload)
            if good and expected <= first and first + count <= limit:
                expected = first + count
                yield first, payload
                at += 32 + (length + 7) // 8 * 8
            else:
                at += 1


def main(folder):
    db = sqlite3.connect(os.path.join(folder, "store.sqlite"))
    buckets = dict(db.execute("SELECT id, name FROM bucket"))
    removed = {row[0] for row in db.execute("SELECT series FROM removed")}
    names, sealed = {}, dict(db.execute("SELECT series, sequence FROM sealed"))
    for number, bucket, measurement, tags, field in db.execute("SELECT id, bucket, measurement, tags, field FROM series"):
        parts = tags.decode().split("\0")[:-1]
        names[number] = buckets[bucket], measurement, dict(zip(parts[::2], parts[1::2])), field
    deleted = {}
    for series, start, stop, sequence in db.execute("SELECT series, start, stop, sequence FROM tombstone"):
        deleted.setdefault(series, []).append((start, stop, sequence))
    found = {}

    def add(series, sequence, time, value):
        if not any(a <= time < b and sequence < s for a, b, s in deleted.get(series, [])):
            found.setdefault(series, {})[time] = value

    listed = ledger(db)
    query = "SELECT period, series, c.id, n, sequence, substr(bytes, offset + 1, length), data_crc FROM chunk c JOIN pack p ON p.id = pack ORDER BY series, sequence"
    for period, series, number, n, sequence, data, crc in db.execute(query):
        if listed is not None and number not in listed.get((period, series), ()):
            continue
        assert crc32c(struct.pack("<q", number) + data) == crc, f"chunk {number} is damaged"
        r = Reader(data)
        if data[:4] == b"\xf7GL\xc2":
            assert struct.unpack_from("<I", data, 4)[0] == crc32c(data[8:]), f"the frame of chunk {number} is damaged"
            r.take(12)
            assert (r.varint(), r.varint(), r.varint()) == (number, series, sequence), f"chunk {number} is another one"
            r.varint()
            assert r.varint() == len(data) - r.at, f"the frame of chunk {number} is damaged"
        assert (r.u8(), r.varint()) == (1, n)
        at = times(r, n)
        for time, value in zip(at, values(r, n)):
            add(series, sequence, time, value)
    for sequence, payload in records(folder, *identity(db)):
        r = Reader(payload)
        version = r.u8()
        assert version in (1, 2)
        if version == 2:
            heading(r)
        for _ in range(r.varint()):
            number, bucket, _ = r.varint(), r.varint(), r.u8()
            measurement = r.text()
            tags = {r.text(): r.text() for _ in range(r.varint())}
            names.setdefault(number, (buckets.get(bucket), measurement, tags, r.text()))
        series = time = 0
        for _ in range(r.varint()):
            head = r.varint()
            series += head >> 4 ^ -(head >> 3 & 1)
            time = signed(time + r.zigzag())
            kind = head & 7
            value = struct.unpack("<d", r.take(8))[0] if kind == 0 else r.zigzag() if kind == 1 else r.text() if kind == 4 else r.varint()
            if sequence > sealed.get(series, 0) and series not in removed:
                add(series, sequence, time, bool(value) if kind == 3 else value)
    for series in sorted(found, key=lambda s: json.dumps(names[s], sort_keys=True)):
        bucket, measurement, tags, field = names[series]
        for time in sorted(found[series]):
            print(json.dumps({"bucket": bucket, "measurement": measurement, "tags": tags, "field": field, "time": time, "value": found[series][time]}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
