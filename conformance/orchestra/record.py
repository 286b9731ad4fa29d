"""What RabbitMQ 3.10 answered, and what a result of ours means beside it."""

import json
import tomllib
from typing import NamedTuple

from .lines import Result
from .parts import CONFORMANCE

RECORD = CONFORMANCE / "rabbitmq-3.10.toml"
EXCEPTIONS = CONFORMANCE / "exceptions.toml"
HEADING = """\
# What RabbitMQ 3.10 answers to every test: written by `conformance/run --target rabbitmq`, not by hand.
# A test that passed there must pass here; one that failed there is told but not counted. What one run passed and
# another failed is kept as unstable; to start anew, delete the part's table.
"""
KEYS = {"ok": "passed", "not ok": "failed", "n/a": "not_applicable", "skip": "skipped"}


class Verdict(NamedTuple):
    """A result and what it counts as: `passed`, `failed`, `excused`, `n/a` or `skipped`."""

    counts_as: str
    result: Result


def load(path):
    return tomllib.loads(path.read_text()) if path.exists() else {}


def write(part_name, results, whole=True):
    """Replaces one part's table, or, if only some of its tests ran, what it says of them. A test that has both passed and
    failed, in one run or another, is unstable and stays so."""
    record = load(RECORD)
    before = {key: set(tests) for key, tests in record.get(part_name, {}).items()}
    ran = {result.test for result in results}
    table = {key: set() if whole else before.get(key, set()) - ran for key in KEYS.values()}
    for result in results:
        table[KEYS[result.outcome]].add(result.test)
    unstable = before.get("unstable", set())
    unstable |= table["passed"] & before.get("failed", set()) | table["failed"] & before.get("passed", set())
    record[part_name] = {key: sorted(tests - unstable) for key, tests in table.items()} | {"unstable": sorted(unstable)}
    text = [HEADING]
    for name, table in sorted(record.items()):
        text.append(f"[{json.dumps(name)}]")
        for key, tests in table.items():
            if tests:
                text += [f"{key} = [", *(f"  {json.dumps(test, ensure_ascii=False)}," for test in tests), "]"]
        text.append("")
    RECORD.write_text("\n".join(text))


def alone(results):
    """Verdicts without comparison."""
    counted = {"ok": "passed", "not ok": "failed", "n/a": "n/a", "skip": "skipped"}
    return [Verdict(counted[result.outcome], result) for result in results]


def compared(part_name, results, complete):
    """Verdicts of our results beside RabbitMQ's. `complete`: every test was asked for, so that a missing one has failed."""
    there = load(RECORD).get(part_name, {})
    exceptions = {entry["test"]: entry["reason"] for entry in load(EXCEPTIONS).get(part_name, [])}
    passed_there, failed_there, unstable_there = (set(there.get(key, [])) for key in ("passed", "failed", "unstable"))
    verdicts = []
    for result in results:
        if result.outcome == "ok":
            verdicts.append(Verdict("passed", result))
        elif result.test in exceptions:
            verdicts.append(Verdict("excused", result._replace(reason=exceptions[result.test])))
        elif result.outcome == "not ok" and result.test in failed_there:
            verdicts.append(Verdict("excused", result._replace(reason="also fails on RabbitMQ 3.10")))
        elif result.outcome == "not ok" and result.test in unstable_there:
            verdicts.append(Verdict("excused", result._replace(reason="fails now and then on RabbitMQ 3.10 too")))
        elif result.outcome == "n/a" and result.test in passed_there:
            verdicts.append(Verdict("failed", result._replace(reason=f"passes on RabbitMQ 3.10; here: {result.reason}")))
        else:
            verdicts += alone([result])
    if complete:
        seen = {result.test for result in results}
        for test in sorted(passed_there - seen):
            if test in exceptions:
                verdicts.append(Verdict("excused", Result("not ok", test, exceptions[test])))
            else:
                verdicts.append(Verdict("failed", Result("not ok", test, "passes on RabbitMQ 3.10; did not end here")))
    return verdicts
