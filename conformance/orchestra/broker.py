"""A fresh, empty broker on 127.0.0.1:5672, started and stopped for one part. Which parts there are: parts.py.

While a broker runs, a Unix socket takes `rabbitmqctl` command lines for it, because tests by others stop and start
the broker that way. `bin/rabbitmqctl` sends them; `CONTROL` in its environment names the socket.
"""

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

HOST, PORT = "127.0.0.1", 5672
URL = f"amqp://guest:guest@{HOST}:{PORT}/%2F"
CONTROL = "CONFORMANCE_CONTROL"
START_SECONDS, STOP_SECONDS = 60, 20
ROOT = Path(__file__).resolve().parents[2]
RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")


class BrokerError(Exception):
    """The broker did not start, or its port is taken."""


class Broker:
    """A broker process with a data folder of its own. Subclasses say how it is started and what it prints when ready."""

    ready_line: str

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.log = self.folder / "broker.log"
        self.process = None
        self.control = None

    def __enter__(self):
        try:
            if answers(PORT):
                raise BrokerError(f"something listens on {HOST}:{PORT} already; stop it first")
            self.start()
            self.prepare()
            self.control = Control(self.folder / "control", self.rabbitmqctl)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.control:
            self.control.close()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        """Starts the process and returns when it says that it is ready."""
        try:
            self.process = subprocess.Popen(
                self.command(), env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True,
            )
        except OSError as error:
            raise BrokerError(f"the broker cannot be started: {error}") from error
        os.set_blocking(self.process.stdout.fileno(), False)
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            said, deadline = b"", time.monotonic() + START_SECONDS
            while self.ready_line.encode() not in said:
                chunk = self.process.stdout.read() if ready.select(deadline - time.monotonic()) else None
                if not chunk:
                    raise BrokerError(f"the broker did not say `{self.ready_line}`:\n{said.decode(errors='replace')[-2000:]}")
                said += chunk
        self.log.write_bytes(said)
        os.set_blocking(self.process.stdout.fileno(), True)
        threading.Thread(target=append, args=(self.process.stdout, self.log), daemon=True).start()

    def stop(self):
        """SIGTERM, then SIGKILL for whatever is left of the process group."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def environment(self):
        return dict(os.environ)

    def prepare(self):
        """What is set up once the broker runs."""


class ProntoMQ(Broker):
    """The broker of this repository."""

    ready_line = "Server startup complete"
    binary = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "prontomq"

    def command(self):
        return [self.binary, "serve", "--data-dir", self.folder / "data", "--config", ROOT / "conformance" / "prontomq.toml"]

    def rabbitmqctl(self, arguments):
        """Stops or starts the whole process, on the same data folder."""
        if arguments == ["stop_app"]:
            self.stop()
        elif arguments == ["start_app"]:
            self.start()
        else:
            return 64
        return 0


class RabbitMQ(Broker):
    """Debian's rabbitmq-server, all its listeners on 127.0.0.1."""

    ready_line = "completed with"

    def __init__(self):
        super().__init__()
        self.epmd = None

    def start(self):
        if not answers(4369):
            self.epmd = subprocess.Popen(["epmd", "-address", HOST], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        super().start()

    def stop(self):
        super().stop()
        if self.epmd:
            self.epmd.terminate()
            self.epmd.wait()
            self.epmd = None

    def command(self):
        return [RABBITMQ_BIN / "rabbitmq-server"]

    def environment(self):
        return os.environ | {
            "HOME": str(self.folder),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(PORT),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def prepare(self):
        for arguments in (
            ["add_user", "user", "bitnami"],
            ["set_user_tags", "user", "administrator"],
            ["set_permissions", "-p", "/", "user", ".*", ".*", ".*"],
        ):
            if self.rabbitmqctl(arguments) != 0:
                raise BrokerError(f"rabbitmqctl {' '.join(arguments)} failed")

    def rabbitmqctl(self, arguments):
        return subprocess.run(
            [RABBITMQ_BIN / "rabbitmqctl", *arguments], env=self.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
        ).returncode


class Control:
    """Takes one `rabbitmqctl` command line per connection (words parted by NUL) and answers its exit status."""

    def __init__(self, path, rabbitmqctl):
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.rabbitmqctl = rabbitmqctl
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rw") as line:
                arguments = line.readline().rstrip("\n").split("\0")
                try:
                    status = self.rabbitmqctl(arguments)
                except BrokerError as error:
                    print(error)
                    status = 69
                print(status, file=line)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def append(stream, path):
    with stream, path.open("ab", buffering=0) as log:
        while chunk := stream.read1(65536):
            log.write(chunk)


TARGETS = {"prontomq": ProntoMQ, "rabbitmq": RabbitMQ}
