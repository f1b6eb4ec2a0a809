"""The work: what is asked of a proxy, by which tool, and what the tool counted."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import policy

HERE = Path(__file__).parent
PREFIX = "/v1/models/m050"  # the one route of the table that is used
MIB = 1 << 20


@dataclass(frozen=True)
class Item:
    """One kind of work. `work`: which configurations do it. `gate`: its CPU per request decides pass or fail."""

    name: str
    title: str
    path: str
    connections: int
    tool: str = "wrk"
    headers: tuple[str, ...] = ()
    upload: int = 0
    streams: int = 1
    gate: bool = False
    work: str = "plain"


ITEMS = [
    Item("h1-1", "HTTP/1.1 keep-alive, small JSON, 1 connection", "/predict", 1, gate=True),
    Item("h1-8", "HTTP/1.1 keep-alive, small JSON, 8 connections", "/predict", 8, gate=True),
    Item("h1-64", "HTTP/1.1 keep-alive, small JSON, 64 connections", "/predict", 64, gate=True),
    Item("close", "connection per request, small JSON, 8 at a time", "/predict", 8, headers=("Connection: close",)),
    Item("down-1MiB", "1 MiB responses, 8 connections", f"/bytes/{MIB}", 8),
    Item("up-10MiB", "10 MiB uploads, 4 connections", "/echo", 4, upload=10 * MIB),
    Item("h2", "HTTP/2 downstream, small JSON, 8 connections of 10 streams", "/predict", 8, "h2load", streams=10),
    *(
        Item(f"policy-{n}", f"policies, HTTP/1.1 keep-alive, small JSON, {n} connections", "/predict", n, gate=True,
             headers=(f"Origin: {policy.ORIGIN}",), work="policy")
        for n in (8, 64)
    ),
]


@dataclass(frozen=True)
class Counted:
    """What a load tool saw. Latencies in microseconds; errors include answers that are not 2xx or 3xx."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    errors: int


def run(item: Item, port: int, seconds: int, scratch: Path, spawn: dict) -> Counted:
    """Loads 127.0.0.1:`port` for whole `seconds`. `spawn`: extra arguments for subprocess.

    Raises RuntimeError when the tool fails or its answer is not understood.
    """
    url = f"http://127.0.0.1:{port}{PREFIX}{item.path}"
    tool = wrk if item.tool == "wrk" else h2load
    try:
        return tool(item, url, seconds, scratch, spawn)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{item.tool} did not end") from error


def wrk(item: Item, url: str, seconds: int, _scratch: Path, spawn: dict) -> Counted:
    command = ["wrk", "-t1", f"-c{item.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE / "wrk.lua"]
    for header in item.headers:
        command += ["-H", header]
    command += [url]
    if item.upload:
        command += ["--", str(item.upload)]
    text = output(command, seconds, spawn)
    line = re.search(r"^RESULT (.*)$", text, re.MULTILINE)
    if not line:
        raise RuntimeError(f"wrk said: {text.strip()[-300:]}")
    return Counted(**json.loads(line.group(1)))


def h2load(item: Item, url: str, seconds: int, scratch: Path, spawn: dict) -> Counted:
    log = scratch / "h2load.log"
    log.unlink(missing_ok=True)  # h2load appends
    command = ["h2load", "-t1", f"-c{item.connections}", f"-m{item.streams}", f"-D{seconds}", f"--log-file={log}", url]
    text = output(command, seconds, spawn)
    took = re.search(r"finished in ([\d.]+)(ms|s)", text)
    done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", text)
    if not took or not done or not log.exists():
        raise RuntimeError(f"h2load said: {text.strip()[-300:]}")
    latencies, starts, refused = [], [], 0
    with log.open() as lines:
        for line in lines:
            begun, status, microseconds = line.split()
            starts.append(int(begun))
            latencies.append(int(microseconds))
            refused += not 200 <= int(status) < 400
    latencies.sort()
    if not latencies:
        raise RuntimeError("h2load finished no request")
    duration = float(took.group(1)) * (0.001 if took.group(2) == "ms" else 1)
    if max(starts) - min(starts) < 0.8e6 * duration:
        raise RuntimeError("its connections died early: h2load does not reconnect")
    p50, p99 = (latencies[int(share * len(latencies))] for share in (0.50, 0.99))
    return Counted(len(latencies), duration, p50, p99, refused)


def output(command: list, seconds: int, spawn: dict) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 20, text=True, **spawn
    )
    return done.stdout


def version(tool: str) -> str | None:
    """Returns the first line a tool says about itself, None when it is missing."""
    try:
        said = output([tool, "--version"], 0, {})
    except OSError:
        return None
    return said.splitlines()[0].split("Copyright")[0].strip() if said else tool
