"""MLServer's Open Inference Protocol over REST, through Forebay: what it says arrives byte for byte."""

import json
import shutil
import subprocess

import pytest

from harness.forebay import marked, request
from harness.mlserver import infer_body
from harness.wire import assert_handed_on, exchange

SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]


def through(mlserver, forebay, method: str, path: str, body: bytes | None = None):
    """Sends through Forebay, and checks that both sides saw the same request body, response head and response body."""
    headers, mark = marked()
    if body is not None:
        headers["content-type"] = "application/json"
    delivered = request(forebay.port, method, path, body, headers)
    recorded = exchange(mlserver.http_relay, "x-test-mark", mark)
    assert recorded.request.start == f"{method} {path} HTTP/1.1"
    assert recorded.request.body == (body or b"")
    assert recorded.request.get("content-type") == headers.get("content-type")
    assert_handed_on(delivered, recorded.response)
    return delivered


@pytest.mark.parametrize(
    "path", ["/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/iris", "/v2/models/iris/ready", "/v2/models/iris/versions/v1"]
)
def test_health_and_metadata_are_handed_on(mlserver, in_front_of_mlserver, path):
    assert through(mlserver, in_front_of_mlserver, "GET", path).status == 200


def test_an_inference_is_answered_by_the_model(mlserver, in_front_of_mlserver):
    body = infer_body([SETOSA, VIRGINICA], ["predict"])
    delivered = through(mlserver, in_front_of_mlserver, "POST", "/v2/models/iris/infer", body)
    answer = json.loads(delivered.body)
    assert answer["model_name"] == "iris"
    assert answer["outputs"][0]["data"] == [0, 2]


def test_five_mebibytes_pass_unchanged_in_both_directions(mlserver, in_front_of_mlserver):
    body = infer_body([[step / 7e4, 3.5, 1.4, 0.2] for step in range(160_000)], ["predict", "predict_proba"])
    assert len(body) >= 5 << 20
    delivered = through(mlserver, in_front_of_mlserver, "POST", "/v2/models/iris/infer", body)
    assert delivered.status == 200
    assert len(delivered.body) >= 5 << 20


def test_an_unknown_model_is_the_servers_own_404(mlserver, in_front_of_mlserver):
    body = infer_body([SETOSA], ["predict"])
    delivered = through(mlserver, in_front_of_mlserver, "POST", "/v2/models/tulip/infer", body)
    assert delivered.status == 404
    assert b"tulip" in delivered.body
    assert delivered.get("x-forebay-reason") is None


def test_a_refused_body_is_the_servers_own_answer(mlserver, in_front_of_mlserver):
    delivered = through(mlserver, in_front_of_mlserver, "POST", "/v2/models/iris/infer", b'{"inputs": "nonsense"}')
    assert 400 <= delivered.status < 500
    assert delivered.get("x-forebay-reason") is None


def test_the_server_learns_whom_it_answers(mlserver, in_front_of_mlserver):
    headers, mark = marked()
    request(in_front_of_mlserver.port, "GET", "/v2", headers=headers | {"x-forwarded-for": "203.0.113.9", "connection": "close"})
    sent = exchange(mlserver.http_relay, "x-test-mark", mark).request
    assert sent.get("host") == f"127.0.0.1:{in_front_of_mlserver.port}"
    assert sent.get("x-forwarded-for") == "127.0.0.1", "an untrusted peer's claim is replaced"
    assert sent.get("x-forwarded-proto") == "http"
    assert sent.get("x-request-id")
    assert sent.get("traceparent")
    assert (sent.get("connection") or "").lower() != "close", "hop-by-hop headers end here"


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_curl_is_served_in_every_version_it_speaks(mlserver, in_front_of_mlserver, version):
    body = infer_body([SETOSA, VIRGINICA], ["predict"])
    url = f"http://127.0.0.1:{in_front_of_mlserver.port}/v2/models/iris/infer"
    curl = ["curl", "-sS", "--fail", version, "-H", "content-type: application/json", "--data-binary", "@-", "-w", "\n%{http_version}", url]
    done = subprocess.run(curl, input=body, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    answer, spoken = done.stdout.rsplit(b"\n", 1)
    assert json.loads(answer)["outputs"][0]["data"] == [0, 2]
    assert spoken == b"2" if "http2" in version else spoken.startswith(b"1")
