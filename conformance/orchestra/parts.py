"""The parts of a run: what each is called, how it is installed and how it is started."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from . import lines
from .broker import ROOT, URL

CONFORMANCE = ROOT / "conformance"
METRICS = "http://127.0.0.1:15692/metrics"
DIALOGUE_TARGETS = {"prontomq": "prontomq", "rabbitmq": "rabbitmq-3.10"}
QUICK = ("orchestra", "cargo", "dialogues", "clients/pika")


@dataclass
class Part:
    """One row of the table."""

    name: str
    run: list
    install: list | None = None
    reader: object = lines.contract
    needs_broker: bool = True
    limit_seconds: int = 900

    def command(self, piece):
        """`piece`: of the names of the tests to run. Parts without a broker are quick and run whole."""
        return [*map(str, self.run), *(["--only", piece] if self.needs_broker and piece else [])]


def parts(target):
    """Every part for this target, in the order of the table."""
    found = [Part("orchestra", [CONFORMANCE / "orchestra" / "test_record.py"], needs_broker=False)]
    if target == "prontomq":
        found.append(Part("cargo", ["cargo", "test", "--workspace", "--no-fail-fast"], reader=lines.cargo, needs_broker=False,
                          limit_seconds=2400))
    dialogues = ["cargo", "run", "--release", "-p", "conformance", "--", "--url", URL, "--target", DIALOGUE_TARGETS[target]]
    if target == "rabbitmq":
        dialogues += ["--record", CONFORMANCE / "rabbitmq-3.10-dialogues.toml"]
    found.append(Part("dialogues", dialogues, install=["cargo", "build", "--release", "-p", "conformance"],
                      limit_seconds=1200))
    for group in ("clients", "suites"):
        for run in sorted(CONFORMANCE.glob(f"{group}/*/run")):
            found.append(Part(f"{group}/{run.parent.name}", [run, "--url", URL], install=[run.parent / "install"]))
    if target == "prontomq":
        grafana = CONFORMANCE / "grafana"
        found.append(Part("grafana", [grafana / "run", "--metrics", METRICS, "--url", URL], install=[grafana / "install"]))
    return found


def select(all_parts, only, quick):
    """The parts named by `--only` patterns (`suites`, `clients/pika`, `suites/kombu/priority`), with what follows the name."""
    if quick:
        all_parts = [part for part in all_parts if part.name in QUICK]
    if not only:
        return [(part, "") for part in all_parts]
    chosen = []
    for part in all_parts:
        for pattern in only:
            if fnmatchcase(part.name, pattern) or part.name.startswith(pattern.rstrip("/") + "/"):
                chosen.append((part, ""))
                break
            if pattern.startswith(part.name + "/"):
                chosen.append((part, pattern.removeprefix(part.name + "/")))
                break
    return chosen
