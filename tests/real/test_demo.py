"""`forebay demo`: from zero to answers of two model versions, with nothing but the binary."""

import json
import math
import re
import shutil
import subprocess
import time
from collections import Counter

import pytest

from harness.forebay import BINARY, answers, request
from harness.process import Process, free_port

CURL_TIMED_OUT = 28
REQUESTS = 500
SHARE_OF_V1 = 0.2


class Demo(Process):
    """`forebay demo` on free ports, in an empty directory."""

    def __init__(self, directory):
        self.port, self.admin = free_port(), free_port()
        addresses = ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        super().__init__("demo", [BINARY, "demo", *addresses], cwd=directory)
        self.ready("a first answer", lambda: answers(self.port, "/v1/models/iris"), 30)
        self.first_answer = time.monotonic() - self.started_at
        self.ready("its lines to be printed", lambda: "curl" in self.log, 5)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory):
    with Demo(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


def test_both_versions_answer_by_their_weights(demo, measured):
    measured(f"start to first answer {demo.first_answer * 1000:.0f} ms")
    body = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]}).encode()
    versions: Counter[str | None] = Counter()
    for _ in range(REQUESTS):
        answer = request(demo.port, "POST", "/v1/models/iris:predict", body, {"content-type": "application/json"})
        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["predictions"] == ["setosa", "virginica"]
        versions[answer.get("x-model-version")] += 1
    five_sigma = 5 * math.sqrt(REQUESTS * SHARE_OF_V1 * (1 - SHARE_OF_V1))
    assert set(versions) == {"v1", "v2"}, versions
    assert abs(versions["v1"] - REQUESTS * SHARE_OF_V1) <= five_sigma, versions


def test_it_says_where_it_listens(demo):
    assert f"http://127.0.0.1:{demo.port}" in demo.log
    assert f"http://127.0.0.1:{demo.admin}" in demo.log
    assert answers(demo.admin, "/readyz")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_every_line_it_prints_works(demo):
    lines = re.findall(r"^\s*((?:for .*)?curl .*)$", demo.log, re.M)
    assert len(lines) >= 5, demo.log
    for line in lines:
        # `-N` follows what has no end: its first seconds are looked at.
        endless = line.startswith("curl -sN ")
        command = f"{line} --max-time 3" if endless else line
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
        expected = CURL_TIMED_OUT if endless else 0
        assert done.returncode == expected and done.stdout, f"{line}\n{done.stdout}{done.stderr}"


def test_it_ends_when_told_and_leaves_nothing_behind(tmp_path):
    with Demo(tmp_path) as demo:
        demo.end()
        assert demo.child.returncode == 0
    assert not list(tmp_path.iterdir())
