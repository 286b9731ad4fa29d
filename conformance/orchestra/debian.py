"""Debian's packages: installed when run as root, otherwise named."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import threading
from pathlib import Path

from .broker import RABBITMQ_BIN

MISSING = 127  # the exit status of an `install` whose toolchain is missing: the shell's for an unknown command
POLICY = Path("/usr/sbin/policy-rc.d")
WAIT = ["-o", "DPkg::Lock::Timeout=900"]
# What parts need on the machine: a command, a file or a Python module, and the package that has it.
VENV = {"import ensurepip": "python3-venv"}
NEEDS = {
    "clients/aio-pika": VENV,
    "clients/amqp091-go": {"go": "golang-go"},
    "clients/amqplib": {"npm": "npm"},
    "clients/java": {"mvn": "maven", "javac": "default-jdk-headless"},
    "clients/kombu": VENV,
    "clients/librabbitmq": {"cc": "gcc", "/usr/include/amqp.h": "librabbitmq-dev"},
    "clients/pika": VENV,
    "grafana": {"prometheus": "prometheus"},
    "suites/aiormq": VENV,
    "suites/amqp091-go": {"go": "golang-go"},
    "suites/amqpstorm": VENV,
    "suites/dramatiq": VENV,
    "suites/kombu": VENV,
    "suites/py-amqp": VENV,
}
apt = threading.Lock()


def needs(part_name):
    """Sees to what a part needs on the machine. Returns nothing, or what is missing and why."""
    return packages(*(package for thing, package in NEEDS.get(part_name, {}).items() if not present(thing)))


def present(thing):
    if thing.startswith("import "):
        return importlib.util.find_spec(thing.removeprefix("import ")) is not None
    return shutil.which(thing) is not None or Path(thing).exists()


def rabbitmq():
    """Sees to the RabbitMQ to compare with."""
    return None if RABBITMQ_BIN.exists() else packages("rabbitmq-server")


def packages(*names):
    """Installs these packages. Returns nothing, or what is missing and why."""
    if not names:
        return None
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"not installed, and installing needs Debian and root: {' '.join(names)}"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with apt, no_autostart():
        for step in (["update"], ["install", "-y", "--no-install-recommends", *names]):
            done = subprocess.run(["apt-get", "-q", *WAIT, *step], env=environment, stdout=subprocess.DEVNULL)
            if done.returncode != 0:
                return f"apt-get could not install {' '.join(names)}"
    return None


@contextlib.contextmanager
def no_autostart():
    """No package may start its server: tests start what they need, and on 127.0.0.1."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
