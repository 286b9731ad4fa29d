"""Suites that are the integration tests of a Go module: how their `install` and `run` work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import lines
from .parts import CONFORMANCE
from .python import TEST_SECONDS, run_arguments
from .rust import print_results

TAGGED = re.compile(r"^//go:build integration$", re.MULTILINE)
TEST = re.compile(r"^func (Test\w+)\((.*?)^}", re.MULTILINE | re.DOTALL)


class Suite:
    """The tests in the module's files that are tagged `integration`, compiled from a copy below `.cache`."""

    def __init__(self, script, module, version, without):
        """`without`: a call whose tests are left out."""
        self.module = f"{module}@{version}"
        self.without = without
        self.cache = CONFORMANCE / ".cache" / "suites" / Path(script).resolve().parent.name
        self.source = self.cache / version
        self.binary = self.source / "suite.test"

    def install(self):
        """Fetches the module by name, copies its sources and compiles the tests."""
        if self.binary.exists():
            return
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir(parents=True)
        told = subprocess.run(["go", "mod", "download", "-json", self.module], cwd=self.cache, check=True,
                              stdout=subprocess.PIPE).stdout
        shutil.copytree(json.loads(told)["Dir"], self.source)
        for path in [self.source, *self.source.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)  # the module cache is read-only
        subprocess.run(["go", "test", "-c", "-tags", "integration", "-o", self.binary.name, "."], cwd=self.source, check=True)

    def run(self):
        """Runs the tests one at a time and exits. `rabbitmqctl` means the broker of this run."""
        options = run_arguments()
        files = [path.read_text() for path in sorted(self.source.glob("*_test.go"))]
        tests = [test for text in files if TAGGED.search(text) for test, body in TEST.findall(text) if self.without not in body]
        asked = [test for test in tests if options.only in test]
        command = [self.binary, "-test.v=test2json", "-test.count=1", "-test.parallel=1", f"-test.timeout={TEST_SECONDS * 4}s",
                   f"-test.run=^({'|'.join(asked)})$"]
        environment = {"AMQP_URL": options.url, "RABBITMQ_RABBITMQCTL_PATH": str(CONFORMANCE / "orchestra" / "bin" / "rabbitmqctl")}
        tested = subprocess.Popen(command, cwd=self.source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, env=os.environ | environment)
        told = subprocess.Popen(["go", "tool", "test2json"], stdin=tested.stdout, stdout=subprocess.PIPE, text=True,
                                errors="replace")
        failed = print_results(lines.go(said_too(told.stdout)))
        sys.exit(tested.wait() or failed)


def said_too(events):
    """Passes the events on, and prints what the tests themselves say as they say it."""
    for event in events:
        print("  " + json.loads(event).get("Output", "").rstrip(), flush=True)
        yield event
