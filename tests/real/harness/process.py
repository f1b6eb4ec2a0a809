"""Child processes with a log, ended by their pid, and conditions awaited with a deadline."""

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

#: The processes that run or that the current test ran, for the logs of a failed test.
STARTED: list["Process"] = []


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that the kernel just chose and that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: str, condition: Callable[[], T], deadline: float = 30.0, every: float = 0.02) -> T:
    """Returns the first true value of `condition`, asked every `every` seconds for at most `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s for: {what}")
        time.sleep(every)


def _die_with_the_tests() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child whose output goes to one file. It dies with the tests, however they end."""

    def __init__(self, name: str, command: Sequence[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None):
        self.name = name
        #: How much of the log belongs to earlier tests, in characters.
        self.seen = 0
        self._log = tempfile.NamedTemporaryFile(prefix=f"forebay-{name}-", suffix=".log")
        self.started_at = time.monotonic()
        self.child = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_the_tests,
        )
        STARTED.append(self)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def log(self) -> str:
        """Everything it printed so far."""
        return Path(self._log.name).read_text(errors="replace")

    def until(self, what: str, condition: Callable[[], object], deadline: float = 60.0):
        """Awaits a condition; fails at once, with the log, when the process ended."""

        def alive_and_true():
            if self.child.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.child.returncode}:\n{self.log[-4000:]}")
            return condition()

        return until(f"{self.name}: {what}", alive_and_true, deadline)

    def ready(self, what: str, condition: Callable[[], object], deadline: float = 30.0) -> None:
        """As `until`, for constructors: a process that does not get ready is ended, as no one else could."""
        try:
            self.until(what, condition, deadline)
        except BaseException:
            self.end()
            raise

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to this process only."""
        self.child.send_signal(number)

    def wait(self, deadline: float = 30.0) -> int:
        """Returns the exit code; negative for a signal."""
        return self.child.wait(deadline)

    def end(self) -> None:
        """Asks, waits 15 s, kills."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
