"""Thousands that wait for a server that is dead: memory, refusals, and what is left when they have gone."""

import selectors
import socket
import time
from pathlib import Path
from statistics import median

import procfs
import subject

WAITERS, BODY = 5000, 100 << 10
MOST_BYTES = 64 << 20
PER_CONNECTION = 40 << 10
PER_WAITER = 4096
REFUSED_MS = 5
REFUSALS = 1000
LEFT = 32 << 20


def connect(port: int, count: int) -> list[socket.socket]:
    """Opens so many connections."""
    opened = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.setblocking(False)
        opened.append(client)
    return opened


def upload(clients: list[socket.socket], one: subject.Subject, waiting: int) -> None:
    """Sends as much of every body as is taken, until so many wait and nothing more is taken for a while."""
    head = f"POST / HTTP/1.1\r\nhost: bench\r\ncontent-length: {BODY}\r\n\r\n".encode()
    whole = head + b"x" * BODY
    sent = dict.fromkeys(clients, 0)
    quiet = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_WRITE)
        while True:
            for key, _ in selector.select(0.1):
                at = sent[key.fileobj]
                try:
                    sent[key.fileobj] += key.fileobj.send(whole[at:at + 65536])
                    quiet = time.monotonic()
                except BlockingIOError:
                    continue
                if sent[key.fileobj] == len(whole):
                    selector.unregister(key.fileobj)
            if time.monotonic() - quiet > 1 and one.metric("forebay_waiting") == waiting:
                return
            if time.monotonic() - quiet > 60:
                raise RuntimeError(f"{one.metric('forebay_waiting'):g} of {waiting} wait")


def refusals(one: subject.Subject) -> tuple[list[float], list[float]]:
    """Asks one after the other while nobody else may wait; returns the milliseconds that passed for each, and those of
    the proxy's CPU, connection included."""
    passed, used = [], []
    for _ in range(REFUSALS):
        before = sum(one.cpu().threads.values())  # the scheduler's, in steps of 1 ns
        with socket.create_connection(("127.0.0.1", one.running.port)) as client:
            begun = time.perf_counter()
            client.sendall(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
            answer = client.recv(1000)
            passed.append((time.perf_counter() - begun) * 1000)
            if not answer.startswith(b"HTTP/1.1 503"):
                raise RuntimeError(f"it was told {answer[:40]!r}")
        used.append((sum(one.cpu().threads.values()) - before) / 1000)
    return sorted(passed), sorted(used)


def stir(one: subject.Subject) -> None:
    """Has requests come and go for some seconds: the allocator gives back what is free when it is used next."""
    for _ in range(5):
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", one.running.port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")
        one.until("forebay_waiting", 0)
        time.sleep(1)


def dead(program: str, scratch: Path, core: int | None) -> dict:
    """5000 uploads of 100 KiB at a closed port."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # never listens
        keys = f"queue: {{max_requests: {WAITERS}, max_bytes: {MOST_BYTES}B}}"
        one = subject.start("dead", program, scratch, core, nobody.getsockname()[1], keys)
        try:
            before = one.resident()
            clients = connect(one.running.port, WAITERS)
            upload(clients, one, WAITERS)
            grown, held = one.resident() - before, one.metric("forebay_waiting_bytes")
            passed, used = refusals(one)
            for client in clients:
                client.close()
            for gauge in ("forebay_waiting", "forebay_waiting_bytes", "forebay_requests_in_flight"):
                one.until(gauge, 0)
            stir(one)
            return {"grown": grown, "held": held, "passed_ms": passed, "used_ms": used,
                    "left": one.resident() - before}
        finally:
            one.stop()


def parked(program: str, scratch: Path, core: int | None, backend: int) -> dict:
    """What one that waits takes beside its open connection: a GET without a body, behind a server that is busy."""
    one = subject.start("parked", program, scratch, core, backend, f"concurrency: 1, queue: {{max_requests: {WAITERS}}}")
    try:
        clients = connect(one.running.port, WAITERS)
        warm = b"GET /v1/models/m050/predict HTTP/1.1\r\nhost: bench\r\n\r\n"
        for client in clients:
            client.setblocking(True)
            client.sendall(warm)
            if not client.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("it is not served")
        time.sleep(1)
        idle = one.resident()
        with socket.create_connection(("127.0.0.1", one.running.port)) as busy:
            busy.sendall(b"GET /delay/600000 HTTP/1.1\r\nhost: bench\r\n\r\n")
            one.until("forebay_endpoint_in_flight", 1)
            for client in clients:
                client.sendall(warm)
            one.until("forebay_waiting", WAITERS)
            waiting = one.resident()
            begun = one.cpu()
        for client in clients:  # the one that was served has left: all of them are served, one after the other
            if not client.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("one that waited is not served")
        cpu = sum(procfs.spent(begun, one.cpu()))
        one.until("forebay_waiting", 0)
        for client in clients:
            client.close()
        return {"each": (waiting - idle) / WAITERS, "cpu_us": cpu / WAITERS, "idle_each": idle / WAITERS}
    finally:
        one.stop()


def report_dead(found: dict) -> list[dict]:
    bound = 1.2 * MOST_BYTES + PER_CONNECTION * WAITERS
    passed, used = found["passed_ms"], found["used_ms"]
    p99 = used[int(0.99 * len(used))]
    mib = 1 << 20
    print(f"\n{WAITERS} × {BODY >> 10} KiB at a dead server: {found['held'] / mib:.1f} MiB held of {MOST_BYTES / mib:.0f},"
          f" RSS + {found['grown'] / mib:.1f} MiB, + {found['left'] / mib:.1f} MiB after they left")
    print(f"refusals meanwhile: p50 {median(passed):.2f} ms, p99 {passed[int(0.99 * len(passed))]:.2f} ms;"
          f" of the proxy's CPU p50 {median(used):.3f} ms, p99 {p99:.3f} ms")
    return [
        {"name": "dead-rss", "what": "RSS growth", "value": found["grown"] / mib, "bound": bound / mib, "unit": " MiB"},
        {"name": "dead-left", "what": "RSS after they left", "value": found["left"] / mib, "bound": LEFT / mib,
         "unit": " MiB"},
        {"name": "refused", "what": "CPU of a refusal, p99", "value": p99, "bound": REFUSED_MS, "unit": " ms"},
    ]


def report_parked(found: dict) -> list[dict]:
    print(f"\n{WAITERS} wait on open connections: {found['each']:.0f} bytes each beside"
          f" {found['idle_each'] / 1024:.1f} KiB of an idle connection; released and served: {found['cpu_us']:.1f} CPU µs each")
    return [{"name": "parked", "what": "bytes of one that waits", "value": found["each"], "bound": PER_WAITER,
             "unit": " bytes"}]
