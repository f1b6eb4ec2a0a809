"""Active health checks of a real model server that dies and comes back."""

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families

from harness.forebay import Forebay, request
from harness.mlserver import infer_body
from harness.process import until

BODY = infer_body([[5.1, 3.5, 1.4, 0.2]], ["predict"])


class Callers:
    """Two callers who ask for inferences until they are told to stop, and note the version of the model that answered."""

    def __init__(self, port: int):
        self.port = port
        #: `v1`, `v2`, or what was answered instead.
        self.answers: list[str] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(2)

    def __enter__(self) -> "Callers":
        self._running = [self._pool.submit(self._ask) for _ in range(2)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def _ask(self) -> None:
        while not self._stop.wait(0.01):
            try:
                answer = request(self.port, "POST", "/v2/models/iris/infer", BODY, {"content-type": "application/json"})
                said = json.loads(answer.body)["model_version"] if answer.status == 200 else f"{answer.start}: {answer.body!r}"
            except Exception as error:  # whatever it is, the caller has no answer
                said = repr(error)
            self.answers.append(said)

    def heard(self, wanted: set[str], without: str = "") -> None:
        """Waits until each of `wanted` answered 10 more requests and `without` none of the last 20."""
        before = {said: self.answers.count(said) for said in wanted}

        def done() -> bool:
            enough = all(self.answers.count(said) >= before[said] + 10 for said in wanted)
            return enough and without not in self.answers[-20:]

        until(f"answers of {wanted} and none of {without!r}", done)


def test_a_killed_server_is_found_and_comes_back_and_no_caller_notices(mlserver, iris_servers, tmp_path):
    _, dying = iris_servers
    endpoint = f"127.0.0.1:{dying.http}"
    pair = {
        "name": "iris",
        "server": "kserve-v2",
        "endpoints": [f"127.0.0.1:{mlserver.http}", endpoint],
        "balance": "round_robin",
        "health": {"kind": "http", "path": "/v2/health/ready", "interval": "200ms", "timeout": "5s", "unhealthy": 2},
    }
    route = {"name": "iris", "cluster": "iris", "retry": {"when": ["connect", "refused", "reset", 502, 503], "methods": "all"}}
    with Forebay(tmp_path, routes=[route], clusters=[pair]) as forebay, Callers(forebay.port) as callers:

        def samples(name: str) -> list:
            families = text_string_to_metric_families(forebay.metrics())
            return [sample for family in families for sample in family.samples if sample.name == name]

        def healthy() -> dict[str, float]:
            return {sample.labels["endpoint"]: sample.value for sample in samples("forebay_endpoint_healthy")}

        survivor = {f"127.0.0.1:{mlserver.http}": 1}
        until("both are healthy", lambda: healthy() == survivor | {endpoint: 1})
        callers.heard({"v1", "v2"})

        dying.process.signal(signal.SIGKILL)
        try:
            assert dying.process.wait() == -signal.SIGKILL
            until("its death is noticed", lambda: healthy() == survivor | {endpoint: 0})
            callers.heard({"v1"}, without="v2")
            assert healthy() == survivor | {endpoint: 0}
        finally:
            dying.start()
            dying.ready()
        until("it is back", lambda: healthy() == survivor | {endpoint: 1})
        callers.heard({"v1", "v2"})
        assert sum(sample.value for sample in samples("forebay_retries_total")) >= 1
    assert set(callers.answers) == {"v1", "v2"}, "no request failed"
