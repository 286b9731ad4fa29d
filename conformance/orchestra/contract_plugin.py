"""A pytest plugin that prints the lines of lines.py, and their totals at the end."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--contract-only", default="", help="run only the tests with this in their ids")


def pytest_configure(config):
    config.pluginmanager.register(Printer(config), "contract-printer")


def pytest_collection_modifyitems(config, items):
    if piece := config.getoption("--contract-only"):
        items[:] = [item for item in items if piece in item.nodeid]


class Printer:
    def __init__(self, config):
        self.config = config
        self.counts = {"ok": 0, "not ok": 0, "n/a": 0}
        self.worst = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report):
        counted = report.when == "call" or not report.passed
        return report.outcome if counted else "", "", ""

    def pytest_runtest_logreport(self, report):
        """One test is up to three reports (setup, call, teardown); the worst is told after the last."""
        if report.when == "setup":
            self.worst = None
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            said = crash.message if crash else str(report.longrepr)
            self.worst = self.worst or ("not ok", f"{report.when}: " if report.when != "call" else "", said)
        elif report.skipped:
            self.worst = self.worst or ("n/a", "", report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected failure")
        if report.when == "teardown":
            outcome, when, said = self.worst or ("ok", "", "")
            self.counts[outcome] += 1
            reason = f" -- {when}{' '.join(said.split())[:300]}" if said else ""
            self.print(f"{outcome} {report.nodeid}{reason}")

    def pytest_collectreport(self, report):
        if report.failed:
            self.counts["not ok"] += 1
            self.print(f"not ok {report.nodeid} -- does not load: {' '.join(str(report.longrepr).split())[-300:]}")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self):
        self.print(f"{self.counts['ok']} passed, {self.counts['not ok']} failed")

    def print(self, line):
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if terminal:
            terminal.ensure_newline()
            terminal.write_line(line)
        else:
            print(line)
