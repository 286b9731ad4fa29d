#!/usr/bin/env python3
"""Measures ProntoMQ and Debian's RabbitMQ 3.10 side by side, interleaved, and writes `docs/benchmarks.md`.

Needs a release build (`cargo build --release`) and the package rabbitmq-server. Both brokers get the same client,
`prontomq bench`, in turn: each round starts a fresh broker of each kind on 127.0.0.1:5672 and runs every load on it.
Quoted are medians over the rounds, and the ratio of medians.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "conformance"))
from orchestra import broker  # noqa: E402

PROGRAM = ROOT / "target" / "release" / "prontomq"
LOADS = {
    "A": "1 publisher, 1 consumer, 16 B, transient, no-ack",
    "B": "1 KiB persistent, 1,000 confirms in flight, prefetch 1,000, every message acknowledged",
    "C": "publish only, 16 B, transient",
    "D": "drain 1 million standing messages, 16 B, transient, no-ack",
    "E": "confirm one by one, 16 B, transient",
    "F": "confirm one by one, 1 KiB, persistent",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--loads", default="A,B,E,F", help="of " + ", ".join(LOADS))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    loads = options.loads.split(",")
    runs, idle, starts = {}, {}, {}
    for number in range(options.rounds):
        for name, kind in broker.TARGETS.items():
            began = time.monotonic()
            with kind() as running:
                starts.setdefault(name, []).append(time.monotonic() - began)
                pid = process_of(running)
                time.sleep(2)
                idle.setdefault(name, []).append(resident(pid))
                for load in loads:
                    outcome = bench(load, options.seconds, pid)
                    runs.setdefault((load, name), []).append(outcome)
                    print(f"round {number + 1} {name:9} {load}: {outcome['rate']:>10.0f}/s "
                          f"{outcome.get('messages_per_broker_cpu_second', 0):>10.0f} per CPU second", flush=True)
    options.output.write_text(page(options, loads, runs, idle, starts))
    print(f"wrote {options.output}")


def process_of(running):
    """The broker's own process: RabbitMQ's is a child of the script that starts it."""
    pid = running.process.pid
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        beams = [child for child in children if "beam" in Path(f"/proc/{child}/comm").read_text()]
        if beams:
            return int(beams[0])
        if "beam" in Path(f"/proc/{pid}/comm").read_text() or not children:
            return pid
        pid = int(children[0])


def bench(load, seconds, pid):
    command = [PROGRAM, "bench", "--url", broker.URL, "--scenario", load, "--duration", f"{seconds}s",
               "--broker-pid", str(pid), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def median(values):
    return statistics.median(values)


def page(options, loads, runs, idle, starts):
    lines = [
        "# Benchmarks",
        "",
        "Written by `benches/side_by_side.py`; do not edit by hand.",
        "",
        f"ProntoMQ beside Debian's RabbitMQ 3.10, {options.rounds} interleaved rounds, {options.seconds} s per load after a",
        f"warm-up; the same client (`prontomq bench`) on the same machine ({machine()}), so that the client's work",
        "takes part of the processors. Median (minimum-maximum). Rates drift with the machine; messages per broker CPU",
        "second (from `/proc/PID/stat`) is the steadier figure. Transient loads have no back-pressure but the socket's.",
        "",
    ]
    for figure, title in (("messages_per_broker_cpu_second", "Messages per broker CPU second"), ("rate", "Messages per second")):
        lines += [f"## {title}", "", "| load | ProntoMQ | RabbitMQ 3.10 | ratio |", "|---|---|---|---|"]
        for load in loads:
            ours = [run[figure] for run in runs[load, "prontomq"]]
            theirs = [run[figure] for run in runs[load, "rabbitmq"]]
            lines.append(f"| {load}: {LOADS[load]} | {spread(ours)} | {spread(theirs)} | {median(ours) / median(theirs):.1f} |")
        lines.append("")
    confirms = [load for load in loads if load in "EF"]
    if confirms:
        lines += ["## Confirm latency, one in flight, microseconds", "", "| load | ProntoMQ p50 / p99 | RabbitMQ 3.10 p50 / p99 |", "|---|---|---|"]
        for load in confirms:
            cells = [" / ".join(f"{median([run[key] for run in runs[load, name]]):.0f}" for key in ("latency_p50_us", "latency_p99_us"))
                     for name in ("prontomq", "rabbitmq")]
            lines.append(f"| {load} | {cells[0]} | {cells[1]} |")
        lines.append("")
    lines += [
        "## At rest", "", "| | ProntoMQ | RabbitMQ 3.10 |", "|---|---|---|",
        f"| resident memory, idle, MiB | {spread(idle['prontomq'])} | {spread(idle['rabbitmq'])} |",
        f"| from start to ready, seconds | {spread(starts['prontomq'], 2)} | {spread(starts['rabbitmq'], 2)} |",
        "",
    ]
    return "\n".join(lines)


def spread(values, digits=0):
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def machine():
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return f"{cores} cores, {model}, Linux {platform.release()}"


if __name__ == "__main__":
    main()
