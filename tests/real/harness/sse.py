"""A client of a Server-Sent Events stream that notes when each event came."""

import json
import socket
import threading
import time

from harness.relay import Connection

END_OF_EVENT = b"\n\n"


def events_in(received: bytes) -> int:
    """Complete events in recorded bytes of one response, chunk framing included; JSON never holds a bare empty line."""
    return received.count(END_OF_EVENT)


def event_times(connection: Connection) -> list[float]:
    """When the relay read the end of each event from the server."""
    times, seen, received = [], 0, bytes(connection.received)
    for at, length in connection.arrivals:
        upto = events_in(received[:length])
        times += [at] * (upto - seen)
        seen = upto
    return times


class EventStream:
    """A chat completion with `stream: true` on a raw socket, read as it comes."""

    def __init__(self, port: int, mark: str, *, tokens: int):
        question = {"role": "user", "content": "Count from one to one hundred in words."}
        body = json.dumps(
            {"model": "gemma", "messages": [question], "stream": True, "max_tokens": tokens, "seed": 1, "temperature": 0, "ignore_eos": True}
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
            f"x-test-mark: {mark}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.received = bytearray()
        #: When the end of each event was read, `time.monotonic()`.
        self.times: list[float] = []
        self._more = threading.Condition()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(60)
        self._socket.sendall(head.encode() + body)

    def read(self, events: int | None = None) -> None:
        """Reads until so many events came, or to the last chunk."""
        while not self._complete() and (events is None or len(self.times) < events):
            piece = self._socket.recv(1 << 16)
            assert piece, f"cut after {len(self.times)} events:\n{bytes(self.received[-400:])!r}"
            with self._more:
                self.received += piece
                self.times += [time.monotonic()] * (events_in(self.received) - len(self.times))
                self._more.notify_all()

    def await_events(self, count: int, deadline: float) -> bool:
        """Blocks another thread until `read` has seen so many events; false when they do not come in time."""
        with self._more:
            return self._more.wait_for(lambda: len(self.times) >= count, deadline)

    def close(self) -> None:
        """Leaves, with whatever is unread."""
        self._socket.close()

    def _complete(self) -> bool:
        return self.received.endswith(b"\r\n0\r\n\r\n") or self.received.endswith(b"\n0\r\n\r\n")
