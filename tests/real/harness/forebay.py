"""The binary under test."""

import http.client
import json
import os
import uuid
from pathlib import Path

from harness.process import Process, free_port
from harness.wire import Message

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("FOREBAY_BIN", ROOT / "target/release/forebay")).absolute()


def request(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Message:
    """One request on a connection of its own; returns the response as delivered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        delivered = [(name.lower(), value.strip()) for name, value in response.getheaders()]
        return Message(f"HTTP/1.1 {response.status} {response.reason}", delivered, response.read())
    finally:
        connection.close()


def answers(port: int, path: str, status: int = 200) -> bool:
    """True when a GET is answered with this status."""
    try:
        return request(port, "GET", path).status == status
    except (OSError, http.client.HTTPException):
        return False


def marked() -> tuple[dict[str, str], str]:
    """Returns headers that make a request recognisable in a recording, and the mark."""
    mark = uuid.uuid4().hex
    return {"x-test-mark": mark}, mark


class Forebay(Process):
    """`forebay run -c FILE` with one listener and the admin API on free ports; ready when made."""

    def __init__(self, directory: Path, *, clusters: list, routes: list, listeners: dict | None = None, **more):
        self.port, self.admin = free_port(), free_port()
        listener = {"name": "test", "address": f"127.0.0.1:{self.port}"} | (listeners or {})
        config = {
            "admin": {"address": f"127.0.0.1:{self.admin}"},
            "drain": {"delay": "0s", "timeout": "10s"},
            "listeners": [listener],
            "routes": routes,
            "clusters": clusters,
        }
        file = directory / f"forebay-{self.port}.json"
        file.write_text(json.dumps(config | more, indent=2))
        self.run(file)

    @classmethod
    def from_file(cls, file: Path, port: int, admin: int) -> "Forebay":
        """Runs a file whose listener and admin addresses are known."""
        forebay = cls.__new__(cls)
        forebay.port, forebay.admin = port, admin
        forebay.run(file)
        return forebay

    def run(self, file: Path) -> None:
        """Starts it and waits until it is ready."""
        self.file = file
        super().__init__("forebay", [BINARY, "run", "-c", file])
        self.ready("/readyz", lambda: answers(self.admin, "/readyz"))

    def metrics(self) -> str:
        """The metrics page."""
        return request(self.admin, "GET", "/metrics").body.decode()


def cluster(name: str, port: int, **more) -> dict:
    """A cluster of one endpoint on 127.0.0.1."""
    return {"name": name, "endpoints": [f"127.0.0.1:{port}"]} | more


def catch_all(name: str) -> dict:
    """A route that sends everything to one cluster."""
    return {"name": name, "match": {"path": {"prefix": "/"}}, "cluster": name}
