"""CPU per request of clusters with a room, warm and full, beside the same without one."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import load
import peers
import procfs
import subject

WARM, FULL = 1.10, 1.25


@dataclass(frozen=True)
class Case:
    """`keys` of the cluster; `connections` of the load; `bound`: CPU per request ÷ that without a room, at most."""

    name: str
    title: str
    keys: str
    connections: int
    bound: float


CASES = [
    Case("warm-8", "a slot is always free, 8 connections", "concurrency: 256, queue: {}", 8, WARM),
    Case("warm-64", "a slot is always free, 64 connections", "concurrency: 256, queue: {}", 64, WARM),
    Case("full-64", "8 slots, 64 connections: 56 always wait", "concurrency: 8, queue: {}", 64, FULL),
]


def cell(one: subject.Subject, connections: int, seconds: int, scratch: Path, core: int | None) -> dict:
    """Loads one Forebay for one round; returns its numbers."""
    item = load.Item("room", "", "/predict", connections)
    before = one.cpu()
    counted = load.run(item, one.running.port, seconds, scratch, peers.pinned(core))
    used = sum(procfs.spent(before, one.cpu()))
    if counted.errors or not counted.requests:
        raise RuntimeError(f"{one.running.name}: {counted.errors} errors in {counted.requests} requests")
    return {"cpu_us": used / counted.requests, "rps": counted.requests / counted.seconds, "p50_us": counted.p50_us,
            "p99_us": counted.p99_us}


def measure(program: str, backend: int, rounds: int, seconds: int, scratch: Path, cores: tuple) -> dict[str, list]:
    """Returns the rounds of every case, each a pair: without a room, and with it."""
    proxy_core, load_core = cores
    running: dict[str, subject.Subject] = {}
    cells: dict[str, list] = {case.name: [] for case in CASES}
    try:
        for name, keys in {"bare": "", **{case.name: case.keys for case in CASES}}.items():
            running[name] = subject.start(name, program, scratch, proxy_core, backend, keys)
            cell(running[name], 8, 1, scratch, load_core)
        for number in range(rounds):
            for case in CASES:
                pair = ["bare", case.name]
                for name in pair if number % 2 else reversed(pair):
                    found = cell(running[name], case.connections, seconds, scratch, load_core)
                    cells[case.name].append((number, name, found))
    finally:
        for one in running.values():
            one.stop()
    return {name: pairs(found) for name, found in cells.items()}


def pairs(cells: list) -> list:
    """Returns (without, with) of every round."""
    rounds: dict[int, dict] = {}
    for number, name, found in cells:
        rounds.setdefault(number, {})["bare" if name == "bare" else "room"] = found
    return [(one["bare"], one["room"]) for one in rounds.values()]


def report(cells: dict[str, list]) -> list[dict]:
    """Prints a table; returns the verdicts."""
    print("\n                                            CPU µs/req   without  ratio (of the rounds)    p99 ms  without")
    verdicts = []
    for case in CASES:
        rounds = cells[case.name]
        ratios = [room["cpu_us"] / bare["cpu_us"] for bare, room in rounds]
        middle = {key: (median(bare[key] for bare, _ in rounds), median(room[key] for _, room in rounds))
                  for key in ("cpu_us", "p99_us")}
        spread = f"{median(ratios):.3f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"{case.title:43} {middle['cpu_us'][1]:10.2f} {middle['cpu_us'][0]:9.2f}  {spread:22}"
              f" {middle['p99_us'][1] / 1000:8.3f} {middle['p99_us'][0] / 1000:8.3f}")
        verdicts.append({"name": case.name, "what": "CPU per request ÷ without a room", "value": median(ratios),
                         "bound": case.bound, "unit": ""})
    return verdicts
