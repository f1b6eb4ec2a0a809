"""Mirrors of real model servers: a model trained differently is told apart in the fields that differ, the same one is equal."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import grpc
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families

from harness.forebay import Forebay, cluster, request
from harness.mlserver import infer_body
from harness.process import until

REQUESTS, CALLS = 300, 40
INFER = "/v2/models/iris/infer"
INFER_CALL = "/inference.GRPCInferenceService/ModelInfer"
STRICT, LOOSE = 1e-6, 0.4

#: By name: cluster and comparison. What MLServer draws for itself is `/id`, when the request has none.
MIRRORS = {
    "same": ("twin", {"ignore": ["/id"], "tolerance": {"abs": STRICT}}),
    "same-unignored": ("twin", {"noise": "twin"}),
    "other": ("candidate", {"noise": "twin", "ignore": ["/id", "/model_version"], "tolerance": {"abs": STRICT}}),
    "other-loose": ("candidate", {"ignore": ["/id"], "tolerance": {"abs": LOOSE}}),
}
GRPC_MIRRORS = {"same": ("twin-grpc", {}), "other": ("candidate-grpc", {"noise": "twin-grpc"})}
#: Lines of the recording for one request: of the primary, of each mirror and of each noise cluster.
LINES = {("primary", None), *(("mirror", name) for name in MIRRORS), ("noise", "same-unignored"), ("noise", "other")}


def mirrors(of: dict) -> list:
    return [{"name": name, "cluster": to, "max_in_flight": 1024, "compare": compare} for name, (to, compare) in of.items()]


@dataclass(frozen=True)
class Question:
    """One inference request."""

    rows: list[list[float]]
    outputs: list[str]
    #: None: the server draws one.
    id: str | None

    def body(self) -> bytes:
        return infer_body(self.rows, self.outputs, **({"id": self.id} if self.id else {}))

    def distance(self, one, other) -> float:
        """How far the answers of two models are apart at most, in one number of an output; asked here, not of a server."""
        pairs = ((getattr(one, output)(self.rows), getattr(other, output)(self.rows)) for output in self.outputs)
        return float(max(abs(left - right).max() for left, right in pairs))


def questions() -> list[Question]:
    dice = random.Random(7)

    def flower() -> list[float]:
        ranges = [(4.3, 7.9), (2.0, 4.4), (1.0, 6.9), (0.1, 2.5)]
        return [round(dice.uniform(*span), 1) for span in ranges]

    return [
        Question(
            [flower() for _ in range(dice.randint(1, 3))],
            ["predict", "predict_proba"] if number % 4 < 2 else ["predict"],
            f"asked-{number}" if number % 2 else None,
        )
        for number in range(REQUESTS)
    ]


def ask(port: int, question: Question) -> bytes:
    answer = request(port, "POST", INFER, question.body(), {"content-type": "application/json"})
    assert answer.status == 200, answer.body
    return answer.body


@dataclass
class Seen:
    """What was asked, what came of it, and what Forebay says of its mirrors."""

    forebay: Forebay
    questions: list[Question]
    answers: list[bytes]
    #: How far the candidate's answer is from the primary's, by question.
    distances: list[float]
    #: Lines of the recording.
    lines: list[dict]

    def compared(self, name: str, route: str = "iris") -> dict:
        """The entry of a mirror in `/api/mirrors`, once all its copies are compared."""
        wanted = REQUESTS if route == "iris" else CALLS

        def done() -> dict | None:
            entries = json.loads(request(self.forebay.admin, "GET", "/api/mirrors").body)["mirrors"]
            (entry,) = [entry for entry in entries if (entry["route"], entry["name"]) == (route, name)]
            return entry if sum(entry["compare"]["verdicts"].values()) == wanted else None

        entry = until(f"all copies to {name} are compared", done, 60, 0.1)
        assert entry["outcomes"] == {"ok": wanted}
        return entry["compare"]


def verdicts(compared: dict) -> dict[str, int]:
    return {verdict: count for verdict, count in compared["verdicts"].items() if count}


def fields(compared: dict) -> dict[str, bool]:
    """Which fields differ, and whether that is a regression."""
    return {field["field"]: field["regression"] for field in compared["fields"]}


@pytest.fixture(scope="module")
def seen(mlserver, iris_servers, tmp_path_factory):
    twin, candidate = iris_servers
    directory = tmp_path_factory.mktemp("mirrors")
    names = [("primary", mlserver), ("twin", twin), ("candidate", candidate)]
    kind = {"server": "kserve-v2"}
    rpc = {"name": "rpc", "match": {"path": {"prefix": "/inference.GRPCInferenceService"}}, "cluster": "primary-grpc"}
    iris = {"name": "iris", "match": {"path": {"prefix": "/v2"}}, "cluster": "primary"}
    with Forebay(
        directory,
        routes=[rpc | {"mirrors": mirrors(GRPC_MIRRORS)}, iris | {"mirrors": mirrors(MIRRORS), "record": {"path": "pairs.jsonl"}}],
        clusters=[
            *(cluster(name, server.http, **kind) for name, server in names),
            *(cluster(f"{name}-grpc", server.grpc, protocol="http2", **kind) for name, server in names),
        ],
    ) as forebay:
        asked = questions()
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda question: ask(forebay.port, question), asked))
        path = directory / "pairs.jsonl"
        wanted = REQUESTS * len(LINES)
        until("everything is written down", lambda: path.read_bytes().count(b"\n") == wanted, 60, 0.1)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        first, second = twin.model(), candidate.model()
        yield Seen(forebay, asked, answers, [question.distance(first, second) for question in asked], lines)


def test_the_questions_tell_the_models_apart(seen):
    """What the other tests rest on: some answers differ and some do not, at either tolerance."""
    for tolerance in [STRICT, LOOSE]:
        different = sum(distance > tolerance for distance in seen.distances)
        assert REQUESTS / 10 < different < REQUESTS * 9 / 10


def test_the_same_model_twice_is_equal(seen):
    compared = seen.compared("same")
    assert verdicts(compared) == {"equal": REQUESTS}
    assert compared["fields"] == []
    assert compared["total"] == REQUESTS


def test_what_the_server_draws_is_noise(seen):
    """An `id` of the server's own differs between any two servers: the noise cluster says so, without a word in `ignore`."""
    compared = seen.compared("same-unignored")
    drawn = sum(question.id is None for question in seen.questions)
    assert verdicts(compared) == {"noise": drawn, "equal": REQUESTS - drawn}
    (field,) = compared["fields"]
    assert (field["field"], field["raw"], field["noise"], field["regression"]) == ("/id", drawn, drawn, False)


def test_another_model_differs_in_its_outputs(seen):
    compared = seen.compared("other")
    different = sum(distance > STRICT for distance in seen.distances)
    assert verdicts(compared) == {"different": different, "equal": REQUESTS - different}
    (field,) = compared["fields"]
    assert (field["field"], field["raw"], field["noise"], field["regression"]) == ("/outputs/*/data/*", different, 0, True)
    assert field["example"]["primary"] != field["example"]["mirror"]


def test_the_tolerance_says_how_far_apart_is_different(seen):
    compared = seen.compared("other-loose")
    assert fields(compared) == {"/outputs/*/data/*": True, "/model_version": True}
    counts = {field["field"]: field["raw"] for field in compared["fields"]}
    far = sum(distance > LOOSE for distance in seen.distances)
    assert counts == {"/outputs/*/data/*": far, "/model_version": REQUESTS}
    assert verdicts(compared) == {"different": REQUESTS}
    (version,) = [field["example"] for field in compared["fields"] if field["field"] == "/model_version"]
    assert [json.loads(version[side]) for side in ("primary", "mirror")] == ["v1", "v2"]


def test_latencies_are_shown(seen, measured):
    for name in MIRRORS:
        latency = seen.compared(name)["latency"]
        for side in ["primary", "mirror"]:
            times = latency[side]
            assert 0 < times["mean"] < 60 and 0 < times["p50"] <= times["p99"] < 60
        assert latency["ratio"] == pytest.approx(latency["mirror"]["mean"] / latency["primary"]["mean"])
        measured(f"{name}: {latency['mirror']['mean'] * 1000:.1f} ms, {latency['ratio']:.2f} times the primary's")


def test_the_metrics_agree(seen):
    compared = {name: seen.compared(name) for name in MIRRORS}
    samples = list(chain.from_iterable(family.samples for family in text_string_to_metric_families(seen.forebay.metrics())))

    def by(metric: str, label: str, name: str) -> dict[str, float]:
        wanted = {"route": "iris", "mirror": name}.items()
        found = [sample for sample in samples if sample.name == metric and wanted <= sample.labels.items()]
        return {sample.labels[label]: sample.value for sample in found}

    for name in MIRRORS:
        assert by("forebay_compare_total", "verdict", name) == compared[name]["verdicts"]
        outcomes = by("forebay_mirror_requests_total", "result", name)
        assert outcomes == {"ok": REQUESTS, "error": 0, "timeout": 0, "dropped": 0}


def test_callers_get_what_the_primary_says(seen, mlserver):
    """Byte for byte, but for an `id` that the server draws anew each time."""
    for question, answer in zip(seen.questions, seen.answers, strict=True):
        direct = ask(mlserver.http, question)
        if question.id is None:
            drawn, given = (json.loads(body)["id"].encode() for body in (direct, answer))
            direct = direct.replace(drawn, given)
        assert answer == direct


def test_the_recording_can_be_joined_by_request_id(seen):
    joined: dict[str, dict[tuple, dict]] = {}
    for line in seen.lines:
        answers = joined.setdefault(line["request_id"], {})
        assert answers.setdefault((line["role"], line["mirror"]), line) is line, "one line each"
        assert (line["route"], line["status"], line["body_encoding"], line["truncated"]) == ("iris", 200, "json", False)
    assert len(joined) == REQUESTS
    assert all(answers.keys() == LINES for answers in joined.values())

    # Both sides were asked the same, and the callers got what is written down of the primary.
    asked = Counter()
    for answers in joined.values():
        bodies = {json.dumps(line["request"]["body"]) for line in answers.values()}
        assert len(bodies) == 1
        asked.update(bodies)
    assert asked == Counter(json.dumps(json.loads(question.body())) for question in seen.questions)
    given = {body["id"]: body for body in map(json.loads, seen.answers)}
    assert {body["id"]: body for body in (answers["primary", None]["body"] for answers in joined.values())} == given

    # A comparison made outside comes to the same result.
    def predictions(line: dict) -> list:
        return line["body"]["outputs"][0]["data"]

    def differing(role: str, mirror: str) -> int:
        return sum(predictions(answers["primary", None]) != predictions(answers[role, mirror]) for answers in joined.values())

    labels = Counter(line["cluster"] for line in seen.lines)
    assert labels == {"primary": REQUESTS, "twin": 4 * REQUESTS, "candidate": 2 * REQUESTS}
    assert differing("mirror", "same") == differing("noise", "other") == 0
    assert 0 < differing("mirror", "other") == differing("mirror", "other-loose") <= sum(d > STRICT for d in seen.distances)


def test_grpc_answers_are_told_apart_as_well(seen, mlserver):
    """They are compared by bytes, and by `grpc-status`."""

    def message(question: Question, number: int) -> bytes:
        contents = pb.InferTensorContents(fp64_contents=chain.from_iterable(question.rows))
        tensor = pb.ModelInferRequest.InferInputTensor(name="predict", datatype="FP64", shape=[len(question.rows), 4], contents=contents)
        return pb.ModelInferRequest(model_name="iris", id=f"call-{number}", inputs=[tensor]).SerializeToString()

    def call(port: int, messages: Iterable[bytes]) -> list[bytes]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary(INFER_CALL)
            return [infer(message, timeout=60) for message in messages]

    messages = [message(question, number) for number, question in enumerate(seen.questions[:CALLS])]
    assert call(seen.forebay.port, messages) == call(mlserver.grpc, messages)
    assert verdicts(seen.compared("same", "rpc")) == {"equal": CALLS}
    compared = seen.compared("other", "rpc")
    assert verdicts(compared) == {"different": CALLS}, "each answer names the model's version"
    assert fields(compared) == {"body": True}
