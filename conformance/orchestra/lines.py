"""The lines that tests print, one per test: `ok NAME`, `not ok NAME -- reason`, `n/a NAME -- reason`,
`skip NAME -- reason`; and those of cargo and go, translated into them.
"""

import json
import re
from typing import NamedTuple

LINE = re.compile(r"(ok|not ok|n/a|skip) +(\S.*?)(?: -- (.*))?$")
CARGO_BINARY = re.compile(r"\s*(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))")
CARGO_TEST = re.compile(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(?:, (.*))?$")
CARGO_OUTCOMES = {"ok": "ok", "FAILED": "not ok", "ignored": "n/a"}
GO_OUTCOMES = {"pass": "ok", "fail": "not ok", "skip": "n/a"}


class Result(NamedTuple):
    """What became of one test: `outcome` is the line's first word."""

    outcome: str
    test: str
    reason: str = ""

    def __str__(self):
        return f"{self.outcome} {self.test}" + (f" -- {self.reason}" if self.reason else "")


def contract(lines):
    """The results in output that has such lines already."""
    for line in lines:
        if match := LINE.match(line.rstrip("\n")):
            yield Result(match[1], match[2], match[3] or "")


def cargo(lines):
    """The results in the output of `cargo test`, its two streams merged, each named by source file and path."""
    binary = ""
    for line in lines:
        if match := CARGO_BINARY.match(line):
            binary = match[1] or f"doc {match[2]}"
        elif match := CARGO_TEST.match(line.rstrip("\n")):
            yield Result(CARGO_OUTCOMES[match[2]], f"{binary} {match[1]}", match[3] or "")


def go(lines):
    """The results in the output of `go tool test2json`. A test with subtests is told by them, unless it alone fails."""
    outcomes, output = {}, {}
    for line in lines:
        event = json.loads(line)
        test = event.get("Test")
        if test and event["Action"] == "output":
            output.setdefault(test, []).append(event["Output"].strip())
        elif test and event["Action"] in GO_OUTCOMES:
            outcomes[test] = GO_OUTCOMES[event["Action"]]
    for test, outcome in outcomes.items():
        below = [other for name, other in outcomes.items() if name.startswith(test + "/")]
        if not below or (outcome == "not ok" and "not ok" not in below):
            said = [text for text in output.get(test, []) if text and not text.startswith(("===", "---"))]
            yield Result(outcome, test, "" if outcome == "ok" else " | ".join(said)[:300])
