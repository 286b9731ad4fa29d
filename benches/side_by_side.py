#!/usr/bin/env python3
"""Measures ProntoMQ and Debian's RabbitMQ 3.10 side by side, interleaved, and writes `docs/benchmarks.md`.

Needs a release build (`cargo build --release`), the package rabbitmq-server, and for single parts Maven and cargo. Without
arguments it measures all parts and writes the whole page; with names of parts, those, and the rest stays as it was. Both
brokers get the same client in turn, `prontomq bench`, or RabbitMQ's own PerfTest. With `--before` an earlier build takes
part where messages are written one by one. Where `perf` may count system calls, reads and writes are counted too.
"""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "conformance"))
import raw_client  # noqa: E402
from orchestra import broker  # noqa: E402

PROGRAM = broker.ProntoMQ.binary
FIGURES = ROOT / "target" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"
NAMES = {"prontomq": "ProntoMQ", "rabbitmq": "RabbitMQ 3.10"}
BEFORE = "before"
PER_CPU = "messages_per_broker_cpu_second"
MIB = 1 << 20
PERF_TEST = "com.rabbitmq:perf-test:2.22.1"

LOADS = {
    "A": ("1 publisher, 1 consumer, 16 B, transient, no-ack", []),
    "A, one write each": ("as A, the client writes each message on its own", ["--one-write-each"]),
    "B": ("1 KiB persistent, 1,000 confirms in flight, prefetch 1,000, every message acknowledged", []),
    "C": ("publish only, 16 B, transient", []),
    "D": ("drain 1 million standing messages, 16 B, transient, no-ack", []),
    "D2": ("as D, persistent, beyond what a queue keeps in memory", []),
    "E": ("confirm one by one, 16 B, transient", []),
    "F": ("confirm one by one, 1 KiB, persistent", []),
}
EACH = {
    "A": [None, 20_000, 100_000],
    "B": [None, 5_000, 20_000],
    "10x10x10": [None, 20_000],
    "F": [None],
}
EACH_WORDS = {
    "A": LOADS["A"][0],
    "B": LOADS["B"][0],
    "10x10x10": "10 publishers, 10 consumers, 10 queues, 1 KiB persistent, 100 confirms in flight, prefetch 100",
    "F": LOADS["F"][0],
}
LATENCY_RATES = [1_000, 5_000, 20_000, 50_000]
# Processor time of others, as a share of the machine's, above which a run without a rate is void.
FOREIGN_MAX = 0.05
TRIES = 4
READS, WRITES = ("read", "readv", "recvfrom", "recvmsg"), ("write", "writev", "sendto", "sendmsg")
OTHERS = {
    "fanout": "as A, through a fanout exchange to 100 queues; deliveries are counted",
    "queues": "as A, over 1,000 queues",
    "topic": "as A, through a topic exchange with 10,000 bindings",
    "large": "as B, bodies of 1 MiB, 10 in flight",
    "priorities": "as B, ten priorities",
    "rpc": "a request and its answer, one in flight",
    "relay": "as B, through a worker that takes, publishes to a second queue and acknowledges once that is confirmed, on one channel",
    "connections": "connect, publish one message, close",
}
SCALES = {
    "queues": ("queues, as A", "A", "--queues", [1, 10, 100, 1000]),
    "connections": ("pairs of publisher and consumer, as A, a queue for each", "A", None, [1, 2, 4, 16, 64]),
    "bindings": ("bindings of a topic exchange, as A", "topic", "--bindings", [10, 100, 1000, 10000]),
    "size": ("bytes of a body, as B", "B", "--size", [16, 256, 1024, 16384, 262144, 1048576]),
}


# ---- measuring


def bench(running, scenario, *options):
    command = [PROGRAM, "bench", "--url", broker.URL, "--scenario", scenario, "--broker-pid", process_of(running), "--json", *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}{done.stdout}")
    outcome = json.loads(done.stdout)
    print(f"{type(running).__name__:9} {scenario} {' '.join(map(str, options))}: {outcome['rate']:,.0f}/s, "
          f"{outcome.get(PER_CPU, 0):,.0f} per CPU second", flush=True)
    return outcome


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


def resident(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contestants(options):
    """The two brokers, and an earlier build of ours if there is one."""
    kinds = dict(broker.TARGETS)
    if options.before:
        kinds[BEFORE] = type("Before", (broker.ProntoMQ,), {"binary": options.before.resolve()})
    return kinds


def interleaved(rounds, measure, kinds=broker.TARGETS):
    """Runs for each broker in turn, a fresh one each time."""
    found = {}
    for _ in range(rounds):
        for name, kind in kinds.items():
            with kind() as running:
                for key, outcome in measure(running):
                    found.setdefault(key, {}).setdefault(name, []).append(outcome)
    return found


def loads(options):
    def measure(running):
        for load, (_, more) in LOADS.items():
            yield load, bench(running, load.split(",")[0], "--duration", f"{options.seconds}s", *more)
    return {"rounds": options.rounds, "seconds": options.seconds, "runs": interleaved(options.rounds, measure)}


def rated(options):
    def measure(running):
        for load in ("A", "B"):
            rate = {"A": options.rate, "B": options.rate // 4}[load]
            outcome = bench(running, load, "--rate", rate, "--duration", f"{options.seconds}s", "--one-write-each")
            yield f"{load} at {rate:,}/s", outcome
    return {"runs": interleaved(options.rounds, measure)}


def quiet(*arguments):
    """A run while little else ran on the machine; the last of some tries, marked as void, if there is none."""
    for _ in range(TRIES):
        outcome = bench(*arguments)
        share = outcome["foreign_cpu_seconds"] / outcome["seconds"] / os.cpu_count()
        outcome["void"] = share > FOREIGN_MAX
        if not outcome["void"]:
            break
        print(f"void: others took {share:.0%} of the machine", flush=True)
    return outcome


def each(options):
    """Loads whose messages are written one by one: as fast as they go, and at equal rates."""
    def measure(running):
        for load, rates in EACH.items():
            for rate in rates:
                more = ["--duration", f"{options.seconds}s", "--one-write-each"]
                outcome = bench(running, load, *more, "--rate", rate) if rate else quiet(running, load, *more)
                yield f"{load} at {rate:,}/s" if rate else load, outcome
        for rate in LATENCY_RATES:
            yield f"latency {rate}", bench(running, "A", "--duration", f"{options.seconds}s", "--one-write-each", "--rate", rate)
    kinds = contestants(options)
    return {"rounds": options.rounds, "seconds": options.seconds, "runs": interleaved(options.rounds, measure, kinds),
            "calls": calls(kinds) if can_count_calls() else {}}


def counted(pid, seconds, run):
    """What `run` gives, and how many system calls of each kind a process makes meanwhile, per second."""
    events = ",".join(f"syscalls:sys_enter_{call}" for call in (*READS, *WRITES, "futex"))
    counting = subprocess.Popen(["perf", "stat", "-x", ";", "-e", events, "-p", str(pid), "sleep", str(seconds)],
                                stderr=subprocess.PIPE, text=True)
    outcome = run()
    counts = {}
    for line in counting.communicate()[1].splitlines():
        words = line.split(";")
        if len(words) > 2 and words[0].isdigit():
            counts[words[2].removeprefix("syscalls:sys_enter_")] = int(words[0]) / seconds
    return outcome, counts


def can_count_calls():
    tried = subprocess.run(["perf", "stat", "-e", "syscalls:sys_enter_read", "true"], capture_output=True)
    return tried.returncode == 0


def calls(kinds):
    """Messages per read, per write and per futex call of the broker, in a short run of its own."""
    found = {}
    for name, kind in kinds.items():
        for load, rates in EACH.items():
            for rate in rates:
                with kind() as running:
                    more = ["--duration", "4s", "--warm-up", "1s", "--one-write-each", *(["--rate", rate] if rate else [])]
                    pid = process_of(running)
                    outcome, counts = counted(pid, 4, lambda: bench(running, load, *more))
                    per = lambda names: outcome["rate"] / max(sum(counts.get(name, 0) for name in names), 1e-9)  # noqa: E731
                    key = f"{load} at {rate:,}/s" if rate else load
                    found.setdefault(key, {})[name] = [per(READS), per(WRITES), per(["futex"])]
    return found


def others(options):
    def measure(running):
        for load in OTHERS:
            yield load, bench(running, load, "--duration", f"{options.seconds}s")
    return {"runs": interleaved(options.rounds, measure)}


def scaling(options):
    found = {}
    for name, (_, scenario, option, values) in SCALES.items():
        for value in values:
            more = [option, value] if option else ["--queues", value, "--publishers", value, "--consumers", value]
            if scenario == "B" and value >= 16384:
                more += ["--confirms", 100, "--prefetch", 100]
            for target, kind in broker.TARGETS.items():
                with kind() as running:
                    outcome = bench(running, scenario, "--duration", f"{options.seconds}s", *more)
                    found.setdefault(name, {}).setdefault(target, []).append((value, outcome))
    return found


def footprint(options):
    """What the brokers take when they rest: nothing, idle connections, queues, messages."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    found = {}
    for name, kind in broker.TARGETS.items():
        entry = found[name] = {"starts": [], "idle": []}
        for _ in range(options.rounds):
            with kind() as running:
                time.sleep(2)
                entry["idle"].append(resident(process_of(running)))
        entry["starts"] = [start_seconds(kind) for _ in range(options.rounds)]
        with kind() as running:
            pid = process_of(running)
            time.sleep(2)
            before = resident(pid)
            clients = [raw_client.Client(broker.PORT) for _ in range(options.connections)]
            time.sleep(3)
            entry["connections"] = [resident(pid), (resident(pid) - before) * 1024 / options.connections]
            for client in clients:
                client.close()
        with kind() as running:
            pid, count = process_of(running), options.queues if name == "prontomq" else options.queues // 10
            client = raw_client.Client(broker.PORT)
            for number in range(count):
                client.declare(b"queue-%06d" % number)
            time.sleep(3)
            entry["queues"] = [count, resident(pid)]
        with kind() as running:
            pid = process_of(running)
            raw_client.fill(broker.PORT, b"waiting", 1_000_000, 1024, in_flight=1000)
            time.sleep(3)
            entry["waiting"] = resident(pid)
        print(name, entry, flush=True)
    return found | {"connections_opened": options.connections}


def start_seconds(kind):
    """From the start of the process until an AMQP client has a channel."""
    running = kind()
    began = time.monotonic()
    try:
        running.process = subprocess.Popen(running.command(), env=running.environment(), stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=running.folder, start_new_session=True)
        while True:
            try:
                raw_client.Client(broker.PORT).close()
                return time.monotonic() - began
            except (ConnectionError, EOFError):
                time.sleep(0.001)
    finally:
        running.__exit__()


PERF_TESTS = {
    "A": "-x 1 -y 1 -s 16 -a",
    "B": "-x 1 -y 1 -s 1024 -f persistent -c 1000 -q 1000 --queue-args x-queue-type=classic -ad false -u perf-test",
    "C": "-x 1 -y 0 -s 16 -u perf-test-c -ad false",
}


def perftest(options):
    """RabbitMQ's own load tool."""
    classes = perf_test_classes()
    def measure(running):
        pid = process_of(running)
        for load, words in PERF_TESTS.items():
            before, began = cpu_seconds(pid), time.monotonic()
            done = subprocess.run(["java", "-cp", classes, "com.rabbitmq.perf.PerfTest", "--uri", broker.URL, "-z", str(options.seconds + 5),
                                   *words.split()], capture_output=True, text=True, check=True)
            cpu, took = cpu_seconds(pid) - before, time.monotonic() - began
            rates = {kind: float(rate) for kind, rate in re.findall(r"(sending|receiving) rate avg: (\d+) msg/s", done.stdout)}
            seconds = float(re.findall(r"time: ([0-9.]+)", done.stdout)[-1]) if "time:" in done.stdout else took
            rate = rates["sending"] if load == "C" else rates["receiving"]
            latency = re.findall(r"(?:consumer latency|confirm latency).*?(\d+)/(\d+)/(\d+)/(\d+)/(\d+)", done.stdout)
            outcome = {"rate": rate, PER_CPU: rate * seconds / max(cpu, 0.01), "cpu_seconds": cpu, "latency": latency[-1] if latency else None}
            print(f"{type(running).__name__} PerfTest {load}: {outcome}", flush=True)
            yield load, outcome
    return {"runs": interleaved(options.rounds, measure, contestants(options))}


def perf_test_classes():
    """PerfTest and what it needs, fetched with Maven."""
    folder = ROOT / "target" / "perf-test"
    if not (folder / "done").exists():
        group, artifact, version = PERF_TEST.split(":")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(
            "<project><modelVersion>4.0.0</modelVersion><groupId>benches</groupId><artifactId>benches</artifactId><version>1</version>"
            f"<dependencies><dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
            "</dependency></dependencies></project>")
        subprocess.run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=classes"], cwd=folder, check=True)
        (folder / "done").touch()
    return str(folder / "classes" / "*")


def code(_):
    """The benches of single layers: nanoseconds of each, as criterion found them."""
    found = {}
    for name in ("codec", "routing", "queue_state"):
        subprocess.run(["cargo", "bench", "--bench", name], cwd=ROOT, check=True, capture_output=True)
    for path in sorted((ROOT / "target" / "criterion").glob("**/new/estimates.json")):
        benchmark = json.loads((path.parent / "benchmark.json").read_text())
        nanos = json.loads(path.read_text())["median"]["point_estimate"]
        throughput = benchmark["throughput"] or {}
        found[benchmark["full_id"]] = nanos / throughput.get("Elements", 1)
    return found


# ---- writing


def page(figures):
    lines = ["# Benchmarks", "", "Written by `benches/side_by_side.py`; do not edit by hand. [Where the time goes, and what did not help](speed.md);",
             "[benchmarks of the store](storage-benchmarks.md).", "",
             f"ProntoMQ beside Debian's RabbitMQ 3.10 on {machine()}. The client is the same,",
             "and runs on the same machine, so its work takes a part of the processors. Several runs are given as median (minimum-maximum). Rates",
             "vary with the machine; messages per broker CPU second (from `/proc/PID/stat`) is the steadier figure. The ratio is that of the medians.", "", *days(figures), ""]
    for name, write in WRITERS.items():
        if name in figures:
            lines += [*write(figures[name]), ""]
    return "\n".join(lines)


def days(figures):
    """When the parts were measured, as far as that is kept."""
    known = ", ".join(f"{part} {day}" for part, day in figures.get("measured", {}).items())
    return ["Figures of the same load on other pages are from another day, other code and perhaps another machine."] + ([f"Measured: {known}."] if known else [])


def values(runs, name, figure):
    return [run[figure] for run in runs[name] if run.get(figure) is not None]


def versus(runs, figure, digits=0):
    """Cells: ours, theirs, ratio."""
    ours, theirs = (values(runs, name, figure) for name in NAMES)
    if not ours or not theirs:
        return "- | - | -"
    return f"{spread(ours, digits)} | {spread(theirs, digits)} | {ratio(statistics.median(ours), statistics.median(theirs))}"


def ratio(ours, theirs, digits=1):
    """With some decimals; two significant figures below 1."""
    value = ours / max(theirs, 1e-9)
    return f"{value:.{digits}f}" if value >= 1 else f"{value:.2g}"


HEAD = "ProntoMQ | RabbitMQ 3.10 | ratio |"


def table(title, runs, figure, describe, digits=0):
    return [f"### {title}", "", f"| load | {HEAD}", "|---|---|---|---|",
            *(f"| {describe(load)} | {versus(of_load, figure, digits)} |" for load, of_load in runs.items()), ""]


def write_loads(found):
    runs = found["runs"]
    lines = ["## Loads", "", f"{found['rounds']} interleaved rounds. In each round a fresh broker of each kind gets all loads in the order below,",
             f"{found['seconds']} s per load after a warm-up. One queue, one connection per side. D2 has no counterpart in memory;",
             "it shows what a long stored backlog costs.", ""]
    describe = lambda load: f"{load}: {LOADS[load][0]}"  # noqa: E731
    lines += table("Messages per broker CPU second", runs, PER_CPU, describe)
    lines += table("Messages per second", runs, "rate", describe)
    lines += table("Latency p50, microseconds (confirm, or delivery where nothing is confirmed)",
                   {load: of for load, of in runs.items() if load in "EF"}, "latency_p50_us", describe)
    lines += table("Latency p99, microseconds", {load: of for load, of in runs.items() if load in "EF"}, "latency_p99_us", describe)
    mib = {load: {name: [{"mib": run["broker_resident_bytes"] / MIB} for run in of[name]] for name in of} for load, of in runs.items()}
    lines += table("Peak memory, MiB (waiting transient messages are in memory up to `limits.transient_bytes`)", mib, "mib", describe)
    lines += ["A load starts with the memory that the broker still holds from the loads above it: most of what D, D2, E and F show may be left over",
              "from C with its long queue.", ""]
    return lines


def write_rated(found):
    runs = found["runs"]
    same = lambda load: load  # noqa: E731
    return ["## Latency at the same rate", "", "Microseconds from publish to delivery. Each message is written on its own, and counts from the moment when it was due.", "",
            *table("p50", runs, "delivery_latency_p50_us", same), *table("p99", runs, "delivery_latency_p99_us", same)]


def among(title, runs, figure, describe, digits=0):
    """A table of all contestants: minimum, median and maximum, and what ours is of the others."""
    names = [name for name in ("prontomq", BEFORE, "rabbitmq") if any(name in of for of in runs.values())]
    words = {**NAMES, BEFORE: "before"}
    lines = [f"### {title}", "", "| load | " + " | ".join(words[name] for name in names)
             + " | " + " | ".join(f"of {words[name]}" for name in names[1:]) + " |", "|---" * (2 * len(names)) + "|"]
    for load, of in runs.items():
        found = {name: [run[figure] for run in of.get(name, []) if run.get(figure) is not None and not run.get("void")] for name in names}
        cells = [spread(found[name], digits) if found[name] else "-" for name in names]
        middle = {name: statistics.median(found[name]) for name in names if found[name]}
        cells += [ratio(middle["prontomq"], middle[name], 2) if {"prontomq", name} <= middle.keys() else "-" for name in names[1:]]
        lines.append(f"| {describe(load)} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def write_each(found):
    describe = lambda key: f"{key}: {EACH_WORDS[key.split(' at ')[0]]}" if " at " not in key else key  # noqa: E731
    loads = {key: of for key, of in found["runs"].items() if not key.startswith("latency")}
    rates = {f"{int(key.split()[1]):,}/s": of for key, of in found["runs"].items() if key.startswith("latency")}
    same = lambda load: load  # noqa: E731
    lines = ["## Each message written on its own", "", f"As most client libraries do. {found['rounds']} interleaved rounds of {found['seconds']} s; a run without a rate",
             f"counts only if others took less than {FOREIGN_MAX:.0%} of the machine: with more, input piles up by itself and costs less.", "",
             *among("Messages per broker CPU second", loads, PER_CPU, describe), *among("Messages per second", loads, "rate", describe)]
    if found["calls"]:
        lines += ["### Messages per call of the broker", "", "Messages per read, write and futex call, of disks too.", "",
                  "| load | ProntoMQ: read | write | futex | RabbitMQ 3.10: read | write | futex |", "|---|---|---|---|---|---|---|"]
        cell = lambda value: "-" if value > 1e6 else f"{value:,.1f}"  # noqa: E731
        for key, of in found["calls"].items():
            lines.append(f"| {key} | " + " | ".join(cell(value) for name in NAMES for value in of[name]) + " |")
        lines.append("")
    lines += ["Latency from publish to delivery, in microseconds, of A:", ""]
    for quantile, field in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999")):
        lines += among(f"Latency {quantile}, microseconds", rates, f"delivery_latency_{field}_us", same)
    return lines


def write_others(found):
    describe = lambda load: f"{load}: {OTHERS[load]}"  # noqa: E731
    return ["## Other loads", "", *table("Messages per broker CPU second", found["runs"], PER_CPU, describe),
            *table("Messages per second", found["runs"], "rate", describe)]


def write_scaling(found):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    PLOTS.mkdir(exist_ok=True)
    lines = ["## Scaling", ""]
    for name, by_target in found.items():
        title = SCALES[name][0]
        figure, axis = pyplot.subplots(figsize=(7, 3.5))
        for target, points in by_target.items():
            axis.plot([value for value, _ in points], [outcome[PER_CPU] for _, outcome in points], marker="o", label=NAMES[target])
        axis.set(xscale="log", yscale="log", xlabel=title, ylabel="messages per broker CPU second")
        axis.legend()
        figure.tight_layout()
        figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
        lines += [f"### {title[0].upper()}{title[1:]}", "", f"![messages per broker CPU second]({PLOTS.name}/{name}.svg)", "",
                  "| | messages per broker CPU second: ProntoMQ | RabbitMQ 3.10 | ratio | messages per second: ProntoMQ | RabbitMQ 3.10 |",
                  "|---|---|---|---|---|---|"]
        for (value, ours), (_, theirs) in zip(by_target["prontomq"], by_target["rabbitmq"]):
            lines.append(f"| {value:,} | {ours[PER_CPU]:,.0f} | {theirs[PER_CPU]:,.0f} | {ours[PER_CPU] / theirs[PER_CPU]:.1f} | {ours['rate']:,.0f} | {theirs['rate']:,.0f} |")
        lines.append("")
    return lines


def write_footprint(found):
    ours, theirs = found["prontomq"], found["rabbitmq"]
    both = lambda name, digits=0: f"{spread(ours[name], digits)} | {spread(theirs[name], digits)}"  # noqa: E731
    opened = found["connections_opened"]
    return ["## At rest", "", "| | ProntoMQ | RabbitMQ 3.10 |", "|---|---|---|",
            f"| resident memory, idle, MiB | {both('idle')} |",
            f"| from start to an open channel, seconds | {both('starts', 3)} |",
            f"| with {opened:,} idle connections, MiB (KiB each) | {ours['connections'][0]:,.0f} ({ours['connections'][1]:.1f}) | {theirs['connections'][0]:,.0f} ({theirs['connections'][1]:.1f}) |",
            f"| with durable queues, MiB | {ours['queues'][0]:,}: {ours['queues'][1]:,.0f} | {theirs['queues'][0]:,}: {theirs['queues'][1]:,.0f} |",
            f"| with 1 million persistent messages of 1 KiB waiting, MiB | {ours['waiting']:,.0f} | {theirs['waiting']:,.0f} |"]


def write_perftest(found):
    describe = lambda load: f"{load}: `{PERF_TESTS[load]}`"  # noqa: E731
    return ["## With RabbitMQ's PerfTest", "", f"`{PERF_TEST}`. Its own start is part of the measured time.", "",
            *among("Messages per broker CPU second", found["runs"], PER_CPU, describe), *among("Messages per second", found["runs"], "rate", describe)]


def write_code(found):
    return ["## Layers on their own", "", "Nanoseconds: `cargo bench`, per message or frame.", "", "| | ns |", "|---|---|",
            *(f"| {name} | {nanos:,.1f} |" for name, nanos in sorted(found.items()))]


def spread(figures, digits=0):
    middle, least, most = statistics.median(figures), min(figures), max(figures)
    return f"{middle:,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"


def machine():
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return f"{cores} cores, {model}, Linux {platform.release()}"


def measure(options, parts, kept, written, page):
    """Measures the parts that are asked for; figures of the others stay, and the page is written of all."""
    figures = json.loads(kept.read_text()) if kept.exists() else {}
    for part in options.parts:
        figures[part] = parts[part](options)
        figures.setdefault("measured", {})[part] = time.strftime("%Y-%m-%d")
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(figures))
        written.write_text(page(figures))
    print(f"wrote {written}")


PARTS = {"loads": loads, "rated": rated, "each": each, "others": others, "scaling": scaling, "footprint": footprint, "perftest": perftest, "code": code}
WRITERS = {"loads": write_loads, "rated": write_rated, "each": write_each, "perftest": write_perftest, "others": write_others, "scaling": write_scaling,
           "footprint": write_footprint, "code": write_code}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, metavar="PROGRAM", help="an earlier build, to compare with")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=20_000, help="of the equal load, messages/s")
    parser.add_argument("--connections", type=int, default=10_000, help="idle ones")
    parser.add_argument("--queues", type=int, default=50_000, help="of ours; RabbitMQ gets a tenth, it takes minutes for more")
    options = parser.parse_args()
    measure(options, PARTS, FIGURES, PAGE, page)


if __name__ == "__main__":
    main()
