"""Reads recorded bytes: HTTP/1.1 exchanges, DATA of HTTP/2 streams, events of an SSE stream."""

from collections import defaultdict
from dataclasses import dataclass

from harness.relay import Connection, Relay

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


@dataclass
class Message:
    """A request or a response."""

    start: str
    #: In order, names in lower case.
    headers: list[tuple[str, str]]
    #: Without its framing.
    body: bytes

    def get(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start.split(" ")[1])

    @property
    def end_to_end(self) -> list[tuple[str, str]]:
        """The headers that a proxy has to hand on, sorted by name; values of one name keep their order."""
        return sorted(((k, v) for k, v in self.headers if k not in HOP_BY_HOP), key=lambda header: header[0])


def assert_handed_on(delivered: Message, recorded: Message) -> None:
    """What a client got is what the server sent: status, end-to-end headers, body bytes.

    Only a missing `date` is added, which RFC 9110 §6.6.1 asks of whoever forwards.
    """
    headers = delivered.end_to_end
    if recorded.get("date") is None:
        headers = [(name, value) for name, value in headers if name != "date"]
    assert delivered.status == recorded.status
    assert headers == recorded.end_to_end
    assert delivered.body == recorded.body


@dataclass
class Exchange:
    """A request as the proxy sent it, and the response as the server sent it."""

    request: Message
    response: Message
    connection: Connection


def exchange(relay: Relay, header: str, value: str) -> Exchange:
    """Returns the recorded exchange whose request carries this header: what was sent upstream, and what came back."""
    for connection in list(relay.connections):
        for request, response in _exchanges(connection):
            if request.get(header) == value:
                return Exchange(request, response, connection)
    raise AssertionError(f"no recorded request carries {header}: {value}")


def _exchanges(connection: Connection):
    sent, received = bytes(connection.sent), bytes(connection.received)
    at = upto = 0
    while at < len(sent):
        request, at = _message(sent, at, bodiless=False)
        head_only = request.start.startswith("HEAD ")
        response, upto = _message(received, upto, bodiless=head_only)
        yield request, response


def _message(data: bytes, at: int, bodiless: bool) -> tuple[Message, int]:
    head_end = data.index(b"\r\n\r\n", at)
    start, *lines = data[at:head_end].decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    message, at = Message(start, headers, b""), head_end + 4
    if bodiless or start.split(" ")[1] in ("204", "304"):
        return message, at
    if (message.get("transfer-encoding") or "").lower() == "chunked":
        message.body, at = _chunks(data, at)
    elif (length := message.get("content-length")) is not None:
        message.body, at = data[at : at + int(length)], at + int(length)
    elif start.startswith("HTTP/"):
        message.body, at = data[at:], len(data)
    return message, at


def _chunks(data: bytes, at: int) -> tuple[bytes, int]:
    """Returns what has come so far when the last chunk is missing."""
    body = bytearray()
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].split(b";")[0], 16)
        at = line_end + 2
        if size == 0:
            return bytes(body), data.index(b"\r\n", at) + 2
        body += data[at : at + size]
        at += size + 2
    return bytes(body), len(data)


def h2_data(received: bytes) -> dict[int, bytes]:
    """Returns the DATA of each HTTP/2 stream, padding removed."""
    streams: dict[int, bytearray] = defaultdict(bytearray)
    at = 0
    while at + 9 <= len(received):
        length, kind, flags = int.from_bytes(received[at : at + 3], "big"), received[at + 3], received[at + 4]
        stream = int.from_bytes(received[at + 5 : at + 9], "big") & 0x7FFF_FFFF
        payload = received[at + 9 : at + 9 + length]
        if kind == 0:
            streams[stream] += payload[1 : len(payload) - payload[0]] if flags & 0x8 else payload
        at += 9 + length
    return {stream: bytes(data) for stream, data in streams.items()}


def read_response(data: bytes) -> Message:
    """Returns the first response of the bytes a client received."""
    return _message(data, 0, bodiless=False)[0]
