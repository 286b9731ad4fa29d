"""A bare AMQP 0-9-1 client for benchmarks: it sends prepared bytes and reads what it waits for, nothing more."""

import socket
import struct

CONNECTION_START, CONNECTION_TUNE, CONNECTION_OPEN_OK = (10, 10), (10, 30), (10, 41)
CHANNEL_OPEN_OK, QUEUE_DECLARE_OK, QUEUE_PURGE_OK, QUEUE_DELETE_OK = (20, 11), (50, 11), (50, 31), (50, 41)
CONFIRM_SELECT_OK, BASIC_ACK = (85, 11), (60, 80)
CLOSES = ((10, 50), (20, 40))


def short(text):
    return bytes([len(text)]) + text


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel, class_id, method_id, arguments=b""):
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


class Client:
    """One connection with channel 1 open, as guest. Raises EOFError when the broker goes, RuntimeError when it closes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.expect(CONNECTION_START)
        login = b"\0guest\0guest"
        self.socket.sendall(
            method(0, 10, 11, struct.pack(">I", 0) + short(b"PLAIN") + struct.pack(">I", len(login)) + login + short(b"en_US")))
        self.expect(CONNECTION_TUNE)
        self.socket.sendall(method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0)) + method(0, 10, 40, short(b"/") + b"\0\0"))
        self.expect(CONNECTION_OPEN_OK)
        self.socket.sendall(method(1, 20, 10, b"\0"))
        self.expect(CHANNEL_OPEN_OK)

    def close(self):
        self.socket.close()

    def read(self):
        while True:
            if len(self.received) >= 7:
                kind, _, size = struct.unpack(">BHI", self.received[:7])
                if len(self.received) >= size + 8:
                    payload, self.received = self.received[7:7 + size], self.received[size + 8:]
                    return kind, payload
            chunk = self.socket.recv(1 << 20)
            if not chunk:
                raise EOFError
            self.received += chunk

    def expect(self, wanted):
        while True:
            kind, payload = self.read()
            if kind == 1:
                found = struct.unpack(">HH", payload[:4])
                if found == wanted:
                    return payload[4:]
                if found in CLOSES:
                    raise RuntimeError(payload[4:].decode(errors="replace"))

    def declare(self, queue, passive=False):
        """Messages ready."""
        self.socket.sendall(method(1, 50, 10, b"\0\0" + short(queue) + (b"\x03" if passive else b"\x02") + struct.pack(">I", 0)))
        answer = self.expect(QUEUE_DECLARE_OK)
        return struct.unpack(">I", answer[1 + answer[0]:5 + answer[0]])[0]

    def purge(self, queue):
        self.socket.sendall(method(1, 50, 30, b"\0\0" + short(queue) + b"\0"))
        return struct.unpack(">I", self.expect(QUEUE_PURGE_OK))[0]

    def delete(self, queue):
        self.socket.sendall(method(1, 50, 40, b"\0\0" + short(queue) + b"\0"))
        return struct.unpack(">I", self.expect(QUEUE_DELETE_OK))[0]

    def confirm_select(self):
        self.socket.sendall(method(1, 85, 10, b"\0"))
        self.expect(CONFIRM_SELECT_OK)

    def ack(self):
        """The next confirm: tag, and whether it covers all before."""
        return struct.unpack(">QB", self.expect(BASIC_ACK))


def publish(queue, body):
    """The octets of one persistent message."""
    header = struct.pack(">HHQH", 60, 0, len(body), 0x1000) + b"\x02"
    return method(1, 60, 40, b"\0\0" + short(b"") + short(queue) + b"\0") + frame(2, 1, header) + frame(3, 1, body)


def fill(port, queue, count, size, each=1000, in_flight=10_000):
    """Publishes so many persistent messages and waits until all are confirmed."""
    client = Client(port)
    client.declare(queue)
    client.confirm_select()
    octets, sent, confirmed = publish(queue, b"x" * size) * each, 0, 0
    while confirmed < count:
        while sent < count and sent - confirmed < in_flight:
            client.socket.sendall(octets)
            sent += each
        tag, is_all = client.ack()
        confirmed = tag if is_all else confirmed + 1
    client.close()
