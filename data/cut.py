#!/usr/bin/env python3
"""Cuts the shipped recordings out of the packages they come from, and checks them.

    python3 data/cut.py cut UNPACKED_PACKAGES   # rewrite data/*.csv.gz and data/expected.json
    python3 data/cut.py check                   # recompute expected.json from data/*.csv.gz, compare

UNPACKED_PACKAGES is a folder holding the unpacked wheels named in README.md beside this file, each in
any sub-folder. Only the standard library is used. Every number is copied as the text the source has: this
script never parses a reading to print it again, so no rounding can creep in. It must not invent a reading
either: a minute the source's packager filled in is left out.
"""

import csv
import gzip
import io
import json
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

HERE = Path(__file__).resolve().parent
PARIS = ZoneInfo("Europe/Paris")
LONDON = ZoneInfo("Europe/London")
RECORDINGS = ["household-power", "pv-inverter", "pv-stale", "uk-meters", "water-flow"]


def household_power(packages):
    """January 2008 of the household: 31 whole local days, each minute, less what the packager filled."""
    start, stop = "2008-01-01 00:00:00", "2008-02-01 00:00:00"
    columns = {
        "active_kw": "Global_active_power",
        "reactive_kw": "Global_reactive_power",
        "voltage_v": "Voltage",
        "current_a": "Global_intensity",
        "sub_metering_1_wh": "Sub_metering_1",
        "sub_metering_2_wh": "Sub_metering_2",
        "sub_metering_3_wh": "Sub_metering_3",
    }
    day_before, rows = {}, []
    with find(packages, "householdpower.csv").open(newline="") as source:
        for row in csv.DictReader(source):
            stamp = row["date_time"]
            if stamp < "2007-12-31 00:00:00":
                continue
            if stamp >= stop:
                break
            values = [row[name] for name in columns.values()]
            minute = datetime.fromisoformat(stamp)
            # The packager replaced missing minutes by the same minute of the day before. Seven equal
            # columns a day apart are such a copy: a missing reading, and left missing here.
            copied = day_before.get(minute - timedelta(days=1)) == values
            day_before[minute] = values
            if stamp >= start and not copied:
                rows.append([minute.replace(tzinfo=PARIS).isoformat(), *values])
    return ["time", *columns], rows


def pv_inverter(packages):
    """All five days of the NREL RSF II array, each quarter of an hour."""
    columns = {
        "ac_power_kw": "ac_power_kw_1137",
        "inverter_ac_power_w": "inv2_ac_power_w__1047",
        "inverter_dc_power_w": "inv2_dc_power__1135",
        "inverter_dc_voltage_v": "inv2_dc_voltage__1048",
        "inverter_dc_current_a": "inv2_dc_current__1049",
        "inverter_temp_c": "inv2_temp__1050",
        "module_temp_c": "module_temp__1056",
        "ambient_temp_c": "ambient_temp__1053",
        "irradiance_w_m2": "poa_irradiance__1055",
        "irradiance_refcell_w_m2": "poa_irradiance_refcell__1054",
        "refcell_temp_c": "refcell_temp__1052",
        "wind_speed_m_s": "wind_speed__1051",
    }
    # The source names no zone. Its irradiance is symmetrical about 14:02 on the clear days, and the sun
    # passes the site's meridian at 19:06 UTC in early January: the clock is five hours behind UTC.
    clock = timezone(timedelta(hours=-5))
    rows = []
    with find(packages, "nrel_RSF_II.csv").open(newline="") as source:
        for row in csv.DictReader(source):
            time = datetime.strptime(row[""], "%m/%d/%Y %H:%M").replace(tzinfo=clock)
            rows.append([time.isoformat(), *(row[name] for name in columns.values())])
    return ["time", *columns], rows


def pv_stale(packages):
    """All 3,000 labelled quarters of an hour of inverter 2173."""
    labels = {"True": "true", "False": "false"}
    rows = []
    with find(packages, "ac_power_inv_2173_stale_data.csv").open(newline="") as source:
        for row in csv.DictReader(source):
            time = datetime.fromisoformat(row["timestamp"]).isoformat()
            rows.append([time, row["value_normalized"], labels[row["stale_data_mask"]]])
    return ["time", "ac_power_normalized", "stale"], rows


def uk_meters(packages):
    """One tariff year, local April to April, of sample 0: electricity and gas each hour, and the weather."""
    start = datetime(2021, 4, 1, tzinfo=LONDON).astimezone(timezone.utc)
    stop = datetime(2022, 4, 1, tzinfo=LONDON).astimezone(timezone.utc)

    def series(name, time_column, value_column):
        with gzip.open(find(packages, name), "rt", newline="") as source:
            found = {}
            for row in csv.DictReader(source):
                time = datetime.fromisoformat(row[time_column])
                if time.tzinfo is None:  # the temperature file has UTC without saying so in each row
                    time = time.replace(tzinfo=timezone.utc)
                found[time] = row[value_column]
            return found

    electricity = series("uk-electricity-hdd-only-hourly-sample-0.csv.gz", "start", "value")
    gas = series("uk-gas-hdd-only-hourly-sample-0.csv.gz", "start", "value")
    outdoor = series("uk-tempC-sample-0.csv.gz", "dt", "tempC")
    rows = []
    for time in sorted(electricity):
        if start <= time < stop:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ")
            rows.append([stamp, electricity[time], gas.get(time, ""), outdoor.get(time, "")])
    return ["time", "electricity_kwh", "gas_kwh", "outdoor_temp_c"], rows


def water_flow(packages):
    """All 1,268 hours of the pipe branch, with the offsets the source has."""
    rows = []
    with find(packages, "water-flow.csv").open(newline="") as source:
        for row in csv.DictReader(source):
            rows.append([row["Time"], row["Water flow [l/s]"]])
    return ["time", "flow_l_per_s"], rows


def find(packages, name):
    found = sorted(Path(packages).rglob(name))
    if len(found) != 1:
        sys.exit(f"look for {name} under {packages}: found {len(found)} files, wanted exactly one")
    return found[0]


def write(name, header, rows):
    """Writes one recording as `gzip -9n` would: no file name and no time inside, so a repeat is equal."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with (HERE / f"{name}.csv.gz").open("wb") as target:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=target, mtime=0) as packed:
            packed.write(text.getvalue().encode())


def read(name):
    with gzip.open(HERE / f"{name}.csv.gz", "rt", newline="") as source:
        return list(csv.DictReader(source))


def expectations():
    """What a reader of the recordings must find, computed from the shipped files alone, in exact decimals."""
    files = {}
    for name in RECORDINGS:
        rows = read(name)
        times = [datetime.fromisoformat(row["time"]).astimezone(timezone.utc) for row in rows]
        if times != sorted(set(times)):
            sys.exit(f"check {name}: the times are not strictly ascending")
        fields = {}
        for column in rows[0]:
            if column != "time":
                fields[column] = sum(1 for row in rows if row[column] != "")
        files[f"{name}.csv.gz"] = {
            "rows": len(rows),
            "min_time": times[0].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "max_time": times[-1].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "values": fields,
        }

    # Each reading is the mean power of its minute, so its energy is kW / 60. The sums are exact in decimals.
    kilowatt_minutes, minutes = defaultdict(Decimal), defaultdict(int)
    for row in read("household-power"):
        day = datetime.fromisoformat(row["time"]).astimezone(PARIS).date().isoformat()
        kilowatt_minutes[day] += Decimal(row["active_kw"])
        minutes[day] += 1
    days = [
        {"day": day, "minutes": minutes[day], "kwh": float(round(kilowatt_minutes[day] / 60, 9))}
        for day in sorted(kilowatt_minutes)
    ]
    return {
        "files": files,
        "household_kwh_per_local_day": {
            "rule": "energy of a minute = mean active kW of that minute / 60; summed over the local day",
            "zone": "Europe/Paris",
            "last_7_days": days[-7:],
            "all_days_kwh": float(round(sum(kilowatt_minutes.values()) / 60, 9)),
        },
        "pv_stale_labelled_rows": sum(row["stale"] == "true" for row in read("pv-stale")),
    }


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "cut":
        cuts = [household_power, pv_inverter, pv_stale, uk_meters, water_flow]
        for name, cut in zip(RECORDINGS, cuts):
            write(name, *cut(arguments[1]))
        (HERE / "expected.json").write_text(json.dumps(expectations(), indent=2) + "\n")
    elif arguments == ["check"]:
        if json.loads((HERE / "expected.json").read_text()) != expectations():
            sys.exit("check: expected.json does not say what the recordings hold")
        print("check: expected.json agrees with the recordings")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
