"""A Forebay under measurement, and what it says of itself."""

import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "compare"))
import peers  # noqa: E402
import procfs  # noqa: E402

CONFIG = """\
workers: 1
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s, timeout: 1s}}
listeners: [{{name: public, address: "127.0.0.1:{listen}", limits: {{connections: 20000}}}}]
routes: [{{name: all, cluster: bench}}]
clusters: [{{name: bench, endpoints: ["127.0.0.1:{backend}"]{keys}}}]
"""


@dataclass
class Subject:
    """A Forebay with one route to one cluster, listening on `running.port`."""

    running: peers.Running
    admin: int

    @property
    def pids(self) -> list[int]:
        return [self.running.process.pid]

    def metric(self, name: str) -> float:
        """Returns the sum of all series of a family."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def until(self, name: str, wanted: float, patience: float = 60) -> None:
        """Waits until a metric has this value. Raises RuntimeError when it does not, `patience` seconds at most."""
        deadline = time.monotonic() + patience
        while (seen := self.metric(name)) != wanted:
            if time.monotonic() > deadline or self.running.process.poll() is not None:
                raise RuntimeError(f"{name} is {seen:g}, never {wanted:g}: {self.running.last_words()}")
            time.sleep(0.02)

    def resident(self) -> int:
        return procfs.resident(self.pids)

    def cpu(self) -> procfs.Cpu:
        return procfs.cpu(self.pids)

    def stop(self) -> None:
        peers.stop(self.running)


def start(name: str, program: str, scratch: Path, core: int | None, backend: int, keys: str) -> Subject:
    """Starts a Forebay whose cluster is at port `backend` and has these `keys`, and waits until it listens."""
    listen, admin = peers.free_ports(2)
    file, log = scratch / f"{name}.yaml", scratch / f"{name}.log"
    file.write_text(CONFIG.format(admin=admin, listen=listen, backend=backend, keys=f", {keys}" if keys else ""))
    with log.open("wb") as sink:
        process = subprocess.Popen([program, "run", "-c", file], stdout=sink, stderr=sink, **peers.pinned(core))
    subject = Subject(peers.Running(name, process, listen, listen, log=log), admin)
    deadline = time.monotonic() + 20
    while True:
        try:
            subject.metric("forebay_config_generation")
            return subject
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                subject.stop()
                raise RuntimeError(f"{name} does not listen ({error}): {subject.running.last_words()}") from error
        time.sleep(0.02)
