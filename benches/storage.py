#!/usr/bin/env python3
"""Measures what the store does to messages and memory, and writes `docs/storage-benchmarks.md`.

Needs a release build (`cargo build --release`); the part `rivals` also the package rabbitmq-server. Each part leaves its
figures in `target/storage-benchmarks.json`, and the page is written of all that are there.
"""

import argparse
import csv
import json
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import raw_client
from side_by_side import PROGRAM, ROOT, days, machine, measure, process_of, spread
from orchestra import broker

FIGURES = ROOT / "target" / "storage-benchmarks.json"
PAGE = ROOT / "docs" / "storage-benchmarks.md"
PLOT = ROOT / "docs" / "churn.svg"
PORT = 5691
MIB = 1 << 20


def bench(url, scenario, *options):
    command = [PROGRAM, "bench", "--url", url, "--scenario", scenario, "--json", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}{done.stdout}")
    return json.loads(done.stdout)


class Own:
    """A broker of ours on a data directory of its own; what it takes of memory and disk is sampled all the time."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="storage-")
        self.data = Path(self.folder.name) / "data"
        self.url = f"amqp://guest:guest@127.0.0.1:{PORT}/%2F"
        self.resident_max = self.file_max = self.log_max = 0
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def start(self):
        """Seconds until it answers."""
        began = time.monotonic()
        command = [PROGRAM, "serve", "--data-dir", self.data, "--amqp", f"127.0.0.1:{PORT}", "--metrics", "off"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                raw_client.Client(PORT).close()
                break
            except (ConnectionError, EOFError):
                time.sleep(0.001)
        took = time.monotonic() - began
        threading.Thread(target=self.sample, args=(self.process,), daemon=True).start()
        return took

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def sample(self, process):
        def size(name):
            try:
                return (self.data / name).stat().st_size
            except FileNotFoundError:
                return 0
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                self.resident_max = max(self.resident_max, int(status.split("VmHWM:")[1].split()[0]) * 1024)
            except (FileNotFoundError, ProcessLookupError, IndexError):
                return
            self.file_max = max(self.file_max, size("prontomq.sqlite3"))
            self.log_max = max(self.log_max, size("prontomq.sqlite3-wal"))
            time.sleep(0.1)

    def sizes(self):
        return {"resident_mib": self.resident_max / MIB, "file_mb": self.file_max / 1e6, "log_mb": self.log_max / 1e6}


def commits(_):
    """The bench of the store itself, as it prints."""
    done = subprocess.run(["cargo", "bench", "--bench", "store_commit"], cwd=ROOT, check=True, capture_output=True, text=True)
    return {"text": done.stdout.strip()}


def never_written():
    page = urllib.request.urlopen("http://127.0.0.1:15692/metrics").read().decode()
    value = lambda name: float(re.search(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", page, re.M)[1])  # noqa: E731
    elided = value("prontomq_store_persistent_messages_never_written_total")
    return elided / (elided + value("prontomq_store_rows_written_total"))


def rivals(options):
    """Both brokers in turn: consumers keeping up, a growing backlog, then latencies at given rates."""
    runs, shares = {}, []
    def go(name, load, running, *more):
        outcome = bench(broker.URL, load, "--duration", f"{options.seconds}s", "--broker-pid", process_of(running), *more)
        return outcome
    for number in range(options.rounds):
        for name, kind in broker.TARGETS.items():
            for load in ("B", "backlog"):
                with kind() as running:
                    time.sleep(1)
                    outcome = go(name, load, running)
                    if name == "prontomq" and load == "B":
                        shares.append(never_written())
                runs.setdefault(f"{load} {name}", []).append(outcome)
                print(number + 1, name, load, round(outcome["rate"]), round(outcome["messages_per_broker_cpu_second"]), flush=True)
    most = {name: statistics.median(run["rate"] for run in runs[f"B {name}"]) for name in broker.TARGETS}
    plan = [("rabbitmq", most["rabbitmq"] / 2), ("prontomq", most["rabbitmq"] / 2), ("prontomq", most["prontomq"] / 2)]
    rated = {}
    for number in range(options.rounds):
        for name, rate in plan:
            with broker.TARGETS[name]() as running:
                time.sleep(1)
                outcome = go(name, "B", running, "--rate", round(rate))
            rated.setdefault(f"{name} {round(rate)}", []).append(outcome)
            print(number + 1, name, round(rate), outcome["confirm_latency_p50_us"], outcome["confirm_latency_p99_us"], flush=True)
    return {"runs": runs, "rated": rated, "shares": shares, "rounds": options.rounds, "seconds": options.seconds}


def waiting(options, queues, size):
    """Ten million messages of a size: memory and rates, on the way in and out."""
    flags = ("--queues", queues, "--size", size)
    with Own() as own, tempfile.NamedTemporaryFile(suffix=".csv") as series:
        publish = ("backlog", *flags, "--confirms", 10_000, "--series", series.name, "--count")

        def rates(count):
            bench(own.url, *publish, count)
            return [float(line.split(",")[1]) for line in Path(series.name).read_text().splitlines()[1:]]

        up = rates(options.messages)
        own.kill()
        # While the first one's file still takes the system's memory: what grows slower with that is not the broker's.
        with Own():
            beside = statistics.median(rates(options.messages // 10)[1:-1])
    seconds = max(2, len(up) // 10)
    with Own() as own:
        shallow = [bench(own.url, "D2", *flags, "--standing", 200_000)["rate"] for _ in range(5)]
    with Own() as own:
        down = bench(own.url, "D2", *flags, "--standing", options.messages, "--broker-pid", own.process.pid)
        found = {"first": statistics.median(up[1:1 + seconds]), "last": statistics.median(up[-1 - seconds:-1]), "beside": beside,
                 "down": down["rate"], "shallow": statistics.median(shallow), **own.sizes()}
    print(queues, size, found, flush=True)
    return found | {"messages": options.messages, "title": f"{queues} x {size} B"}


def deep(options):
    return waiting(options, 1, 1024)


def wide(options):
    return waiting(options, 1000, 100)


def restart(options):
    """From start to an open channel, with ten million messages in a thousand queues."""
    with Own() as own:
        for queue in range(1000):
            raw_client.fill(PORT, f"deep-{queue}".encode(), options.messages // 1000, 100)
        own.kill()
        killed = [own.start() for _ in range(5) if own.kill() is None]
        own.process.terminate()
        own.process.wait()
        clean = own.start()
        own.kill()
        subprocess.run(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], check=True)
        found = {"killed": killed, "clean": clean, "cold": own.start()}
    print(found, flush=True)
    return found


def removals(options):
    """Purges and deletes a long queue while another one confirms messages one by one; and is killed in the middle."""
    found = {}
    for what in ("purge", "delete"):
        for is_killed in (False, True):
            with Own() as own:
                raw_client.fill(PORT, b"long", options.messages, 1024)
                latencies, over = [], threading.Event()
                other = threading.Thread(target=confirm_one_by_one, args=(latencies, over))
                other.start()
                time.sleep(5)
                client, began, at = raw_client.Client(PORT), time.perf_counter(), time.time()
                removed = getattr(client, what)(b"long")
                took = time.perf_counter() - began
                assert removed == options.messages, removed
                entry = {"answer_ms": took * 1e3}
                if is_killed:
                    time.sleep(1)
                    own.kill()
                    other.join()
                    entry["ready_ms"] = own.start() * 1e3
                    client = raw_client.Client(PORT)
                    entry["other"] = [client.declare(b"other", passive=True), len(latencies)]
                    assert entry["other"][0] >= entry["other"][1], "a confirmed message is lost"
                    try:
                        entry["left"] = client.declare(b"long", passive=True)
                        assert what == "purge" and entry["left"] == 0, entry
                    except RuntimeError:
                        assert what == "delete"
                else:
                    time.sleep(15)
                    over.set()
                    other.join()
                    entry["before"] = quantiles([took for when, took in latencies if when < at])
                    entry["during"] = quantiles([took for when, took in latencies if at <= when < at + 15])
                found[f"{what}{', killed' if is_killed else ''}"] = entry
                print(what, is_killed, entry, flush=True)
    return {"found": found, "messages": options.messages}


def confirm_one_by_one(latencies, over):
    client, octets = raw_client.Client(PORT), raw_client.publish(b"other", b"y" * 1024)
    client.declare(b"other")
    client.confirm_select()
    try:
        while not over.is_set():
            began = time.perf_counter()
            client.socket.sendall(octets)
            client.ack()
            latencies.append((time.time(), time.perf_counter() - began))
    except (EOFError, ConnectionError):
        pass


def quantiles(seconds):
    ordered = sorted(seconds)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3 for share in (0.5, 0.99, 1)]


def churn(options):
    """Messages come and go while 100,000 stand, beside a probe that appends and flushes the same bytes."""
    with Own() as own, tempfile.NamedTemporaryFile(suffix=".csv") as series, \
            tempfile.NamedTemporaryFile(dir=own.folder.name) as probe:
        outcome = bench(own.url, "churn", "--rate", options.rate, "--duration", f"{options.minutes}m", "--warm-up", "10s", "--broker-pid",
                        own.process.pid, "--probe", probe.name, "--series", series.name, "--plot", PLOT)
        with open(series.name, newline="") as lines:
            resident = [int(line["broker_resident_bytes"]) / MIB for line in csv.DictReader(lines)]
        tenth = max(1, len(resident) // 10)
        return {"outcome": outcome, "rate": options.rate, "minutes": options.minutes, **own.sizes(),
                "resident_first": statistics.median(resident[:tenth]), "resident_last": statistics.median(resident[-tenth:])}


def page(figures):
    lines = ["# Benchmarks of the store", "", "Written by `benches/storage.py`; do not edit by hand.", "",
             f"On {machine()}. Rates vary with the machine, and so does the time of a flush: see p50 of a batch of one row, also for SQLite's own C",
             "interface. Compare figures only within a line.", "", *days(figures), ""]
    for names, write in WRITERS.items():
        found = [figures[name] for name in names if name in figures]
        if found:
            lines += [*write(*found), ""]
    return "\n".join(lines)


def write_commits(found):
    return ["## Commits beside SQLite's own C interface", "", "```", found["text"], "```"]


def write_rivals(found):
    lines = ["## Beside RabbitMQ 3.10", "", f"1 KiB persistent, 1,000 confirms in flight; {found['rounds']} interleaved rounds of "
             f"{found['seconds']} s, a fresh broker each. Median (minimum-maximum).", "",
             "| messages per broker CPU second | ProntoMQ | RabbitMQ 3.10 | ratio |", "|---|---|---|---|"]
    for load, title in (("B", "consumers keep up (prefetch 1,000, each acknowledged)"), ("backlog", "nobody consumes")):
        ours, theirs = ([run["messages_per_broker_cpu_second"] for run in found["runs"][f"{load} {name}"]] for name in broker.TARGETS)
        lines.append(f"| {title} | {spread(ours)} | {spread(theirs)} | {statistics.median(ours) / statistics.median(theirs):.1f} |")
    lines += ["", f"When consumers keep up, {statistics.median(found['shares']):.0%} of the messages are acknowledged before they have to be written.", "",
              "| confirm latency, microseconds | p50 | p99 |", "|---|---|---|"]
    for name, runs in found["rated"].items():
        who, rate = name.split()
        title = {"prontomq": "ProntoMQ", "rabbitmq": "RabbitMQ 3.10"}[who]
        cells = [spread([run[f"confirm_latency_{part}_us"] for run in runs]) for part in ("p50", "p99")]
        lines.append(f"| {title} at {int(rate):,} messages/s | {' | '.join(cells)} |")
    return lines


def write_waiting(*shapes):
    lines = [f"## {shapes[0]['messages']:,} messages waiting", "",
             "The machine slows down as the file takes its memory, so an empty queue is measured right after the last tenth.", "",
             "| queues x body | peak memory, MiB | publishing, first tenth, 1/s | last tenth | an empty queue right after | taking, 1/s | of a short queue | file, MB | log, MB |",
             "|---|---|---|---|---|---|---|---|---|"]
    for shape in shapes:
        lines.append(f"| {shape['title']} | {shape['resident_mib']:.0f} | {shape['first']:,.0f} | {shape['last']:,.0f} | {shape['beside']:,.0f} | {shape['down']:,.0f} "
                     f"| {shape['shallow']:,.0f} | {shape['file_mb']:,.0f} | {shape['log_mb']:,.0f} |")
    return lines


def write_restart(found):
    return [f"From start to an open channel with as many in 1,000 queues: {statistics.median(found['killed']) * 1e3:.0f} ms after "
            f"`kill -9`, {found['clean'] * 1e3:.0f} ms after a clean stop, {found['cold'] * 1e3:.0f} ms with cold caches."]


def write_removals(found):
    lines = [f"## Removing {found['messages']:,} messages at once", "", "Meanwhile a publisher of another queue waits for each confirm.", "",
             "| | answer, ms | the other queue's confirms before, ms: p50, p99, max | and for 15 s after |", "|---|---|---|---|"]
    cells = lambda values: ", ".join(f"{value:.2f}" for value in values)  # noqa: E731
    for name, entry in found["found"].items():
        if "before" in entry:
            lines.append(f"| {name} | {entry['answer_ms']:.2f} | {cells(entry['before'])} | {cells(entry['during'])} |")
        else:
            lines.append(f"| {name} a second later | {entry['answer_ms']:.2f} | ready again after {entry['ready_ms']:.0f} ms, nothing came back, "
                         "nothing confirmed was lost | |")
    return lines


def write_churn(found):
    outcome = found["outcome"]
    lines = ["## Messages that come and go while 100,000 stand", "",
             f"{found['rate']:,} messages/s of 1 KiB for {found['minutes']} minutes; the probe appends and flushes the same bytes every 5 ms.", "",
             "![rate and latencies over time](churn.svg)", "", "| microseconds | p50 | p99 | p99.9 | max |", "|---|---|---|---|---|"]
    for title, part in (("confirm", "confirm_latency"), ("probe", "probe_latency")):
        lines.append(f"| {title} | " + " | ".join(f"{outcome[f'{part}_{quantile}_us']:,}" for quantile in ("p50", "p99", "p999", "max")) + " |")
    lines += ["", f"Memory {found['resident_first']:.0f} MiB in the first tenth, {found['resident_last']:.0f} in the last; the file at most "
              f"{found['file_mb']:,.0f} MB, the log {found['log_mb']:,.0f}."]
    return lines


PARTS = {"commits": commits, "rivals": rivals, "deep": deep, "wide": wide, "restart": restart, "removals": removals, "churn": churn}
WRITERS = {("commits",): write_commits, ("rivals",): write_rivals, ("deep", "wide"): write_waiting, ("restart",): write_restart,
           ("removals",): write_removals, ("churn",): write_churn}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--rate", type=int, default=10_000, help="of the churn, messages/s")
    parser.add_argument("--minutes", type=int, default=60, help="of the churn")
    options = parser.parse_args()
    measure(options, PARTS, FIGURES, PAGE, page)


if __name__ == "__main__":
    main()
