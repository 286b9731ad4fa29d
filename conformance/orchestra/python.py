"""Suites written for pytest: how their `install` and `run` work. The lines they print come from contract_plugin.py."""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

from .parts import CONFORMANCE

TEST_SECONDS = 60


class Suite:
    """One suite: its folder here, and its sources and interpreter below `.cache`. The first line of its `requirements.txt`
    is the package that has the tests, pinned."""

    def __init__(self, script):
        self.folder = Path(script).resolve().parent
        self.requirements = self.folder / "requirements.txt"
        self.package = package = self.requirements.read_text().split("\n")[0]
        self.cache = CONFORMANCE / ".cache" / "suites" / self.folder.name
        self.source = self.cache / package.replace("==", "-")
        self.python = self.cache / "venv" / "bin" / "python"

    def install(self):
        """Unpacks the package's sources, tests included, and makes a venv with `requirements.txt`."""
        wanted, done = f"{sys.version}\n{self.requirements.read_text()}", self.cache / "installed"
        if done.exists() and done.read_text() == wanted:
            return
        shutil.rmtree(self.cache, ignore_errors=True)
        call(sys.executable, "-m", "venv", self.cache / "venv")
        name = self.package.split("==")[0]
        call(self.python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name, "-d", self.cache, self.package)
        with tarfile.open(next(self.cache.glob("*.tar.gz"))) as sources:
            sources.extractall(self.cache, filter="data")
        call(self.python, "-m", "pip", "install", "-q", "-r", self.requirements)
        done.write_text(wanted)

    def run(self, *arguments, environment=None):
        """Runs pytest in the sources, with our `support` files added to them; does not return. `addopts` of theirs do not
        apply. `rabbitmqctl` means the broker of this run."""
        options = run_arguments()
        if (self.folder / "support").exists():
            shutil.copytree(self.folder / "support", self.source, dirs_exist_ok=True)
        paths = [CONFORMANCE, self.folder]
        os.environ["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        os.environ["PATH"] = f"{CONFORMANCE / 'orchestra' / 'bin'}:{os.environ['PATH']}"
        os.environ |= environment or {}
        os.chdir(self.source)
        command = [
            self.python, "-m", "pytest", "-q", "--tb=short", "--no-header", "--disable-warnings", "-o", "addopts=", "-p", "no:cacheprovider",
            "-p", "orchestra.contract_plugin", f"--timeout={TEST_SECONDS}", *arguments,
            *([f"--contract-only={options.only}"] if options.only else []),
        ]
        os.execv(command[0], list(map(str, command)))


def run_arguments():
    """What every part's `run` is called with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, type=local_url, help="an empty broker on this machine")
    parser.add_argument("--only", default="", metavar="PIECE", help="only the tests with this in their names")
    return parser.parse_args()


def local_url(text):
    """The suites name 127.0.0.1:5672 themselves, so no other broker will do."""
    url = urlsplit(text)
    if (url.hostname, url.port or 5672) != ("127.0.0.1", 5672):
        raise argparse.ArgumentTypeError("this suite needs its broker at 127.0.0.1:5672")
    return text


def call(*command):
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL)
