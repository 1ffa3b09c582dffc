"""Summarises weather readings: a small script of real work for CPython in a sandbox.

It reads /input.csv, which is in the instance's directory, and prints a summary
for each station. /state.json remembers, from one run to the next, how many
runs there were and the digest of the input that the last one saw. What is
printed depends on these two files only.
"""

import csv
import hashlib
import json
import os
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

INPUT = Path("/input.csv")
STATE = Path("/state.json")


@dataclass
class Station:
    temperatures: list[float] = field(default_factory=list)
    rain: list[float] = field(default_factory=list)
    missing: int = 0

    def summary(self) -> str:
        deciles = statistics.quantiles(self.temperatures, n=10)
        return (
            f"mean {statistics.fmean(self.temperatures):6.2f}  "
            f"median {statistics.median(self.temperatures):6.2f}  "
            f"stdev {statistics.stdev(self.temperatures):5.2f}  "
            f"80% within {deciles[0]:5.2f} and {deciles[-1]:5.2f} degrees  "
            f"rain {sum(self.rain):6.1f} mm  "
            f"missing {self.missing}"
        )


def read_stations(text: str) -> dict[str, Station]:
    stations: defaultdict[str, Station] = defaultdict(Station)
    for row in csv.DictReader(text.splitlines()):
        station = stations[row["station"]]
        if row["temperature_c"]:
            station.temperatures.append(float(row["temperature_c"]))
        else:
            station.missing += 1
        station.rain.append(float(row["rain_mm"]))
    return dict(stations)


def read_state() -> dict:
    try:
        return json.loads(STATE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"runs": 0, "input_sha256": None}


def write_state(state: dict) -> None:
    """Replaces the file in one step: a run that is stopped leaves the old one."""
    new = STATE.with_suffix(".new")
    new.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(new, STATE)


def main() -> int:
    try:
        data = INPUT.read_bytes()
    except OSError as error:
        print(f"report: {INPUT}: {error.strerror}", file=sys.stderr)
        return 1

    state = read_state()
    digest = hashlib.sha256(data).hexdigest()
    seen = "same input" if digest == state["input_sha256"] else "new input"
    state = {"runs": state["runs"] + 1, "input_sha256": digest}

    stations = read_stations(data.decode("utf-8"))
    print(f"run {state['runs']} ({seen} {digest[:12]})")
    for name in sorted(stations):
        print(f"{name:8}  {stations[name].summary()}")
    warmest = max(stations, key=lambda name: statistics.fmean(stations[name].temperatures))
    print(f"warmest: {warmest}")

    write_state(state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
