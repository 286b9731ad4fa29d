"""Suites that are the `tests/` of a crate: how their `install` and `run` work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .lines import Result
from .parts import CONFORMANCE
from .python import TEST_SECONDS, run_arguments

FETCH = """\
[package]
name = "fetch"
version = "0.0.0"
edition = "2024"
[lib]
path = "lib.rs"
[dependencies]
{name} = {{ version = "={version}", default-features = false }}
[workspace]
"""


class Suite:
    """One crate's tests, in a copy below `.cache` with a workspace of its own. `features` replace the default ones."""

    def __init__(self, script, name, version, features=()):
        self.name, self.version = name, version
        self.cache = CONFORMANCE / ".cache" / "suites" / Path(script).resolve().parent.name
        self.source = self.cache / f"{name}-{version}"
        self.cargo_test = ["cargo", "test", "--test", "*", "--no-default-features", "--features", ",".join(features)]

    def install(self):
        """Fetches the crate by name, copies its sources and compiles the tests."""
        if not self.source.exists():
            self.fetch()
        subprocess.run([*self.cargo_test, "--no-run"], cwd=self.source, env=self.environment(), check=True)

    def fetch(self):
        shutil.rmtree(self.cache, ignore_errors=True)
        (self.cache / "fetch").mkdir(parents=True)
        (self.cache / "fetch" / "Cargo.toml").write_text(FETCH.format(name=self.name, version=self.version))
        (self.cache / "fetch" / "lib.rs").touch()
        metadata = subprocess.run(["cargo", "metadata", "--format-version", "1"], cwd=self.cache / "fetch", check=True,
                                  stdout=subprocess.PIPE).stdout
        manifest = next(package["manifest_path"] for package in json.loads(metadata)["packages"] if package["name"] == self.name)
        partial = self.cache / "partial"
        shutil.copytree(Path(manifest).parent, partial)
        # The crate pins its own dependencies; cargo looks for them beside the workspace's manifest.
        shutil.copy(partial / "Cargo.lock", self.cache / "Cargo.lock")
        (self.cache / "Cargo.toml").write_text(f'[workspace]\nresolver = "2"\nmembers = ["{self.source.name}"]\n')
        partial.rename(self.source)

    def environment(self):
        return os.environ | {"CARGO_TARGET_DIR": str(self.cache / "target"), "CARGO_PROFILE_DEV_DEBUG": "0"}

    def run(self):
        """Runs every test in a process of its own, one at a time, and exits."""
        piece = run_arguments().only
        built = subprocess.run([*self.cargo_test, "--offline", "--no-run", "--message-format=json"], cwd=self.source,
                               env=self.environment(), check=True, stdout=subprocess.PIPE, text=True).stdout
        messages = [json.loads(line) for line in built.splitlines()]
        binaries = sorted(message["executable"] for message in messages if message.get("executable") and message["profile"]["test"])
        sys.exit(1 if print_results(self.results(binaries, piece)) else 0)

    def results(self, binaries, piece):
        for binary in binaries:
            listed = subprocess.run([binary, "--list", "--format=terse"], check=True, stdout=subprocess.PIPE, text=True).stdout
            for test in (line.removesuffix(": test") for line in listed.splitlines()):
                name = f"{Path(binary).name.rsplit('-', 1)[0]}::{test}"
                if piece in name:
                    yield self.result(name, [binary, "--exact", test])

    def result(self, name, command):
        try:
            done = subprocess.run(command, cwd=self.source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace", timeout=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            return Result("not ok", name, f"not done after {TEST_SECONDS} s")
        if done.returncode != 0:
            print(done.stdout)
            panic = done.stdout.partition("panicked at ")[2] or f"exit status {done.returncode}"
            return Result("not ok", name, " ".join(panic.split())[:300])
        if "1 passed" not in done.stdout:
            return Result("n/a", name, "the suite ignores it")
        return Result("ok", name)


def print_results(results):
    """Prints the lines and their totals; returns how many failed."""
    counts = {"ok": 0, "not ok": 0, "n/a": 0}
    for result in results:
        counts[result.outcome] += 1
        print(result, flush=True)
    print(f"{counts['ok']} passed, {counts['not ok']} failed")
    return counts["not ok"]
