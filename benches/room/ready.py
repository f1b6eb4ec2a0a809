"""How long it takes from a server's first passed check to the first byte of the answer that waited for it."""

import random
import selectors
import socket
import threading
import time
from pathlib import Path
from statistics import median

import subject

BOUND_MS = 50
LOADING = b"HTTP/1.1 503 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
SERVED = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
ASK = b"GET /v1/models HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"


class Loading:
    """A server that answers 503 to everything until `ready` is set."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            while not self.over.is_set():
                for key, _ in selector.select(0.1):
                    if key.fileobj is self.listener:
                        selector.register(self.listener.accept()[0], selectors.EVENT_READ)
                        continue
                    try:
                        asked = key.fileobj.recv(65536)
                        if asked:
                            key.fileobj.sendall(SERVED if self.ready.is_set() else LOADING)
                    except OSError:
                        pass
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def stop(self) -> None:
        self.over.set()
        self.thread.join()


def once(program: str, scratch: Path, core: int | None, waiters: int, rounds: int) -> list[float]:
    """Returns, of every round, the milliseconds until the first of `waiters` heard something."""
    found = []
    for _ in range(rounds):
        server = Loading()
        one = subject.start("ready", program, scratch, core, server.port, "server: llama.cpp, queue: {}")
        try:
            clients = [socket.create_connection(("127.0.0.1", one.running.port)) for _ in range(waiters)]
            for client in clients:
                client.sendall(ASK)
            one.until("forebay_waiting", waiters)
            time.sleep(0.2 + random.random() * 0.05)  # not in step with the probes
            with selectors.DefaultSelector() as selector:
                for client in clients:
                    selector.register(client, selectors.EVENT_READ)
                begun = time.perf_counter()
                server.ready.set()
                events = selector.select(30)
                took = time.perf_counter() - begun
                answer = events[0][0].fileobj.recv(100) if events else b""
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"who waited was told {answer[:40]!r}")
            found.append(took * 1000)
            for client in clients:
                client.close()
        finally:
            one.stop()
            server.stop()
    return found


def report(found: list[float]) -> list[dict]:
    """Prints p50 and p99; returns the verdict."""
    ordered = sorted(found)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    print(f"\nready → first byte, {len(found)} starts: p50 {median(found):.1f} ms, p99 {p99:.1f} ms,"
          f" longest {ordered[-1]:.1f} ms")
    return [{"name": "ready", "what": "ready → first byte, p99", "value": p99, "bound": BOUND_MS, "unit": " ms"}]
