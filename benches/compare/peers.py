"""The proxies that are compared and the backend behind them: how each is configured, started and ended."""

import http.client
import os
import re
import resource
import shutil
import signal
import socket
import string
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import load
import policy

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
ROUTES = 100
FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id")


class Setup(NamedTuple):
    """A program and what it is told to do. `name` is unique among those that do the same `work`."""

    name: str
    program: str
    work: str
    template: str


SETUPS = [
    Setup("forebay", "forebay", "plain", "forebay.yaml"),
    Setup("haproxy", "haproxy", "plain", "haproxy.cfg"),
    Setup("nginx", "nginx", "plain", "nginx.conf"),
    Setup("envoy", "envoy", "plain", "envoy.yaml"),
    Setup("forebay", "forebay", "policy", "forebay-policy.yaml"),
    Setup("bare", "forebay", "policy", "forebay-bare.yaml"),  # one route without any: what policies are measured by
    Setup("envoy", "envoy", "policy", "envoy-policy.yaml"),
    Setup("envoy-trie", "envoy", "policy", "envoy-policy.yaml"),  # its deny list as a prefix tree
]


class Config(string.Template):
    """A configuration template; `@@` is free in every format used here."""

    delimiter = "@@"


@dataclass
class Running:
    """A started process that listens on `port`, and on `port2` for HTTP/2 (often the same)."""

    name: str
    process: subprocess.Popen
    port: int
    port2: int
    version: str = ""
    log: Path | None = None
    work: str = "plain"
    broken: set[str] = field(default_factory=set)

    def last_words(self) -> str:
        text = self.log.read_text(errors="replace") if self.log and self.log.exists() else ""
        return text.strip()[-600:] or f"exit {self.process.poll()}"


def free_ports(count: int) -> list[int]:
    """Returns ports the kernel chose, all different, free a moment ago."""
    held = []
    try:
        for _ in range(count):
            sock = socket.socket()
            held.append(sock)
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in held]
    finally:
        for sock in held:
            sock.close()


def pinned(core: int | None) -> dict:
    """Arguments for subprocess: own process group, one core (None: any), as many descriptors as allowed."""

    def prepare() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    return {"preexec_fn": prepare, "start_new_session": True, "stdin": subprocess.DEVNULL}


def table(line) -> str:
    """Returns the route table: `line(prefix, cluster)` for 99 decoys and the one that is used."""
    names = (f"/v1/models/m{n:03}" for n in range(ROUTES))
    return "\n".join(line(name, "bench" if name == load.PREFIX else "decoy") for name in names)


def route_line(setup: Setup):
    """Returns how the program writes a route from a prefix to a cluster."""
    split = setup.work == "policy"
    if setup.program == "forebay":
        target = "split: [{{cluster: {}, weight: 90}}, {{cluster: canary, weight: 10}}]" if split else "cluster: {}"
        return lambda p, c: f"- {{name: {p[-4:]}, match: {{path: {{prefix: {p}}}}}, {target.format(c)}}}"
    if setup.program == "envoy":
        target = "cluster: {}"
        if split:
            target = "weighted_clusters: {{clusters: [{{name: {}, weight: 90}}, {{name: canary, weight: 10}}]}}"
        return lambda p, c: " " * 14 + (
            f"- {{match: {{path_separated_prefix: {p}}}, route: {{{target.format(c)}, timeout: 300s}}}}")
    if setup.program == "nginx":
        return lambda p, c: f"        location {p}/ {{ proxy_pass http://{c}; }}"
    return lambda p, c: f"{p}/ {c}"


def write_config(setup: Setup, scratch: Path, ports: dict[str, int]) -> Path:
    """Fills the template of `setup` into `scratch` and returns the file."""
    routes = table(route_line(setup))
    rbac = policy.envoy_trie if setup.name == "envoy-trie" else policy.envoy_principals
    text = Config((HERE / f"{setup.template}.in").read_text()).substitute(
        ports, dir=scratch, routes=routes, user="user root;" if os.geteuid() == 0 else "", origin=policy.ORIGIN,
        blocks=policy.forebay_blocks(), rbac=rbac(),
    )
    if setup.program == "haproxy":
        (scratch / "haproxy.map").write_text(routes + "\n")
    if setup.template == "backend.conf":
        (scratch / "1MiB").write_bytes(b"x" * load.MIB)
    path = scratch / f"{setup.work}-{setup.name}{Path(setup.template).suffix}"
    path.write_text(text)
    return path


def find(kind: str, given: str | None) -> str | None:
    """Returns the executable of a peer: the one given, else an installed one, else None."""
    if given:
        return given if os.access(given, os.X_OK) else None
    if kind == "forebay":
        built = TARGET / "dist" / "forebay"
        return str(built) if built.exists() else None
    if kind == "envoy":  # the binary itself, not the script of the package
        for found in sorted((TARGET / "compare-venv").glob("lib/python3*/site-packages/envoy/_bin/envoy")):
            return str(found)
    return shutil.which(kind, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def start(setup: Setup, program: str, scratch: Path, backend: int, core: int | None) -> Running:
    """Starts a proxy in front of port `backend` and waits until it answers through.

    Raises RuntimeError with what the proxy said when it does not within 20 s.
    """
    http_port, http2_port, admin = free_ports(3)
    config = write_config(setup, scratch, {"http": http_port, "http2": http2_port, "admin": admin, "backend": backend})
    kind = setup.program
    arguments = {
        "forebay": ["run", "-c", config],
        "haproxy": ["-db", "-f", config],
        "nginx": ["-p", scratch, "-e", "stderr", "-c", config],
        "envoy": ["-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
    }[kind]
    one_port = kind in ("forebay", "envoy")  # HTTP/1.1 and HTTP/2 told apart by the preface
    log = scratch / f"{setup.work}-{setup.name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen([program, *arguments], stdout=sink, stderr=sink, **pinned(core))
    running = Running(setup.name, process, http_port, http_port if one_port else http2_port, version(kind, program),
                      log, setup.work)
    try:
        wait_until_answers(running)
        seen = seen_by_backend(running)
        missing = [name for name in FORWARDED if name not in seen]
        if missing:
            raise RuntimeError(f"it does not forward {', '.join(missing)}")
        fault = policy.fault(running.port, load.PREFIX + "/predict") if "policy" in setup.template else None
        if fault:
            raise RuntimeError(f"a policy is not in force, {fault}")
    except BaseException as error:
        stop(running)
        if isinstance(error, RuntimeError):
            raise RuntimeError(f"{error}: {running.last_words()}") from error
        raise
    return running


def start_backend(program: str, scratch: Path, core: int | None) -> Running:
    """Starts the backend, which is examples/backend or nginx."""
    log = scratch / "backend.log"
    if Path(program).name == "nginx":
        port = free_ports(1)[0]
        config = write_config(Setup("backend", "nginx", "plain", "backend.conf"), scratch, {"http": port})
        command = [program, "-p", scratch, "-e", "stderr", "-c", config]
    else:
        port, command = 0, [program]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, **pinned(core))
    running = Running("backend", process, port, port, log=log)
    try:
        for _ in range(400):
            said = re.search(r"listening on .*:(\d+)", log.read_text(errors="replace"))
            running.port = running.port or (int(said.group(1)) if said else 0)
            if running.port:
                break
            time.sleep(0.025)
        wait_until_answers(running)
    except BaseException:
        stop(running)
        raise
    return running


def wait_until_answers(running: Running) -> None:
    deadline = time.monotonic() + 20
    why = "no answer"
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise RuntimeError(f"{running.name} ended")
        try:
            status = fetch(running.port, "/predict")[0]
            if status == 200:
                return
            why = f"answers {status}"
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        time.sleep(0.025)
    raise RuntimeError(why)


def seen_by_backend(running: Running) -> dict[str, str]:
    """Returns the headers that reach the backend through a proxy; an empty one counts as missing."""
    text = fetch(running.port, "/headers")[1].decode("latin-1")
    pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {pair[0].lower(): pair[1] for pair in pairs if pair[1].strip()}


def fetch(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", load.PREFIX + path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def version(kind: str, program: str) -> str:
    flag = {"haproxy": "-v", "nginx": "-v", "forebay": "version"}.get(kind, "--version")
    try:
        said = subprocess.run([program, flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    numbers = re.search(r"\d+\.\d+\.\d+[\w.+-]*", said.stdout)
    return numbers.group(0) if numbers else "?"


def stop(running: Running) -> None:
    """Ends a process and its group: asked first, after 2 s killed."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(running.process.pid, signum)
        except ProcessLookupError:
            break
        try:
            running.process.wait(2)
        except subprocess.TimeoutExpired:
            continue
    running.process.wait(5)
