"""What the scenarios of the Python libraries share: command line, deadline, report. No AMQP lives here."""

import argparse
import signal
import subprocess
import sys
import traceback
import uuid

SCENARIO_SECONDS = 20


class TooLate(Exception):
    """The scenario's time is over. Not a TimeoutError, which libraries catch."""


def unique(name):
    """A queue or exchange name that no other run uses."""
    return f"conformance-{name}-{uuid.uuid4().hex[:12]}"


def same(actual, expected):
    """Fails, and shows both, unless the two are equal."""
    assert actual == expected, f"got {actual!r}, expected {expected!r}"


def raises(error, call):
    """The error of this class that the call raises; fails when it raises none."""
    try:
        call()
    except error as caught:
        return caught
    raise AssertionError(f"no {error} was raised")


class Victim:
    """A worker in a process of its own; leaving the block kills it with SIGKILL, while it holds messages."""

    def __init__(self, url, queue):
        command = [sys.executable, sys.argv[0], "--url", url, "--worker", queue]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def bodies(self, count):
        """The next bodies that the worker says it has."""
        return [self.process.stdout.readline().strip() for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def main(scenarios, worker):
    """Runs the scenarios, functions of the broker's URL named after themselves, or one `worker(url, queue)`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="amqp://guest:guest@127.0.0.1:5672/%2f")
    parser.add_argument("--only", default="", metavar="PATTERN", help="run scenarios whose name contains PATTERN")
    parser.add_argument("--worker", metavar="QUEUE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        sys.exit(worker(options.url, options.worker))

    chosen = [scenario for scenario in scenarios if options.only in scenario.__name__]
    if not chosen:
        parser.error(f"no scenario's name contains {options.only!r}")
    signal.signal(signal.SIGALRM, _too_late)
    outcomes = [_outcome(scenario, options.url) for scenario in chosen]
    failed = outcomes.count("not ok")
    print(f"{outcomes.count('ok')} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def _outcome(scenario, url):
    name = scenario.__name__
    signal.alarm(SCENARIO_SECONDS)
    try:
        scenario(url)
        outcome, text = "ok", name
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = [frame.lineno for frame in frames if frame.filename.endswith("scenarios.py")][-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        outcome, text = "not ok", f"{name} -- line {line}: {reason}"
    finally:
        signal.alarm(0)
    print(outcome, text, flush=True)
    return outcome


def _too_late(_signal, _frame):
    signal.alarm(5)  # for cleaning up
    raise TooLate(f"not done within {SCENARIO_SECONDS} s")
