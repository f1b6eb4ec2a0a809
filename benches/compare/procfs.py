"""What Linux says about running processes: CPU time, memory, and how busy a core is."""

import os
from dataclasses import dataclass
from pathlib import Path

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cpu:
    """CPU time of a process tree since its start, in microseconds.

    `user` and `system` come from /proc/PID/stat in steps of 10 ms; `threads` maps every living thread to its
    time in steps of 1 ns, empty where the kernel keeps no schedstat.
    """

    user: float
    system: float
    threads: dict[int, float]


def tree(root: int) -> list[int]:
    """Returns `root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat after the command (`[0]` is the state), empty for a dead process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu(pids: list[int]) -> Cpu:
    """Sums the CPU time of living processes."""
    user = system = 0.0
    threads = {}
    for pid in pids:
        fields = stat(pid)
        if fields:
            user += int(fields[11]) * TICK_US
            system += int(fields[12]) * TICK_US
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                nanoseconds = Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]
                threads[int(task)] = int(nanoseconds) / 1000
        except (OSError, IndexError):
            pass
    return Cpu(user, system, threads)


def spent(before: Cpu, after: Cpu) -> tuple[float, float]:
    """Returns the (user, system) microseconds between two readings.

    The sum is the scheduler's, exact to a nanosecond, when no thread came or went; the share of each half is
    always that of the ticks.
    """
    user, system = after.user - before.user, after.system - before.system
    ticks = user + system
    if ticks > 0 and before.threads and before.threads.keys() == after.threads.keys():
        exact = sum(after.threads.values()) - sum(before.threads.values())
        return user * exact / ticks, system * exact / ticks
    return user, system


def resident(pids: list[int]) -> int:
    """Returns the resident bytes of living processes; pages they share count once for each."""
    return sum(int(fields[21]) * PAGE for fields in map(stat, pids) if fields)


def core_busy(core: int) -> float:
    """Returns the microseconds `core` has been busy since boot, stolen time included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(v) for v in values[:8])
            return (user + nice + system + irq + softirq + steal) * TICK_US
    return 0.0
