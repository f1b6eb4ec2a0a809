"""llama.cpp's server through Forebay: streams of tokens as they are made, and what a client that leaves does."""

import json
import signal
import statistics
import time

from conftest import llama_command
from harness.forebay import Forebay, answers, catch_all, cluster, marked, request
from harness.process import Process, free_port, until
from harness.relay import Connection, Relay
from harness.sse import EventStream, END_OF_EVENT, event_times, events_in
from harness.wire import assert_handed_on, exchange, read_response


def recorded_stream(relay: Relay, mark: str) -> Connection:
    """The connection on which the marked request was sent upstream."""

    def sent():
        return next((c for c in relay.connections if mark.encode() in bytes(c.sent)), None)

    return until("the request to reach the server", sent, 10)


def counted(page: str, family: str, label: str) -> float:
    """The sum of the samples of a family that carry a label."""
    lines = (line for line in page.splitlines() if line.startswith(family + "{") and label in line)
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_models_are_listed_by_the_server(llama, in_front_of_llama):
    headers, mark = marked()
    delivered = request(in_front_of_llama.port, "GET", "/v1/models", headers=headers)
    recorded = exchange(llama.http_relay, "x-test-mark", mark).response
    assert delivered.status == 200
    assert_handed_on(delivered, recorded)
    assert json.loads(delivered.body)["data"][0]["id"] == "gemma"


def test_a_stream_arrives_byte_for_byte_and_event_by_event(llama, in_front_of_llama, measured):
    _, mark = marked()
    stream = EventStream(in_front_of_llama.port, mark, tokens=120)
    stream.read()
    stream.close()
    delivered = read_response(bytes(stream.received))
    recorded = exchange(llama.http_relay, "x-test-mark", mark)
    assert delivered.status == 200
    assert delivered.get("content-type") == "text/event-stream"
    assert_handed_on(delivered, recorded.response)

    made, came = event_times(recorded.connection), stream.times
    assert len(made) == len(came) == delivered.body.count(END_OF_EVENT) > 100
    # The server writes its last events (finish reason, [DONE]) in one go, and the reader shares its core with the model.
    overtaken = sum(arrived > next_made for arrived, next_made in zip(came, made[1:]))
    assert overtaken <= len(made) // 10, f"{overtaken} of {len(made)} events came after the server had sent the next"
    added = [(arrived - sent) * 1000 for sent, arrived in zip(made, came)]
    gaps = [(later - sooner) * 1000 for sooner, later in zip(made, made[1:])]
    measured(f"{len(made)} events {statistics.median(gaps):.1f} ms apart; added ms: p50 {statistics.median(added):.3f}, max {max(added):.3f}")


def test_the_server_sends_nothing_more_until_the_client_has_each_event(llama, in_front_of_llama):
    """In lockstep, which needs no clock: whoever held an event back until the next one came would wait for ever."""
    _, mark = marked()
    stream = EventStream(in_front_of_llama.port, mark, tokens=40)
    late: list[int] = []
    handed_on = 0

    def gate(connection: Connection) -> None:
        nonlocal handed_on
        if mark.encode() in bytes(connection.sent) and not late:
            if not stream.await_events(handed_on, 10):
                late.append(handed_on)
            handed_on = events_in(bytes(connection.received))

    llama.http_relay.gate = gate
    try:
        stream.read()
    finally:
        llama.http_relay.gate = None
        stream.close()
    assert not late, f"event {late[0]} was held back until more came"
    assert handed_on == len(stream.times) > 30


def test_a_client_that_leaves_ends_the_stream_upstream(llama, in_front_of_llama, measured):
    _, mark = marked()
    stream = EventStream(in_front_of_llama.port, mark, tokens=3000)
    stream.read(events=5)
    connection = recorded_stream(llama.http_relay, mark)
    assert connection.ended_by is None
    left = time.monotonic()
    stream.close()
    until("the connection upstream to be closed", lambda: connection.ended_by, 10)
    assert connection.ended_by == "proxy"
    assert b"[DONE]" not in connection.received
    measured(f"upstream closed {(connection.ended_at - left) * 1000:.1f} ms after the client left")

    def idle():
        slots = json.loads(request(llama.http, "GET", "/slots").body)
        return not any(slot["is_processing"] for slot in slots)

    until("the server's slots to be idle", idle, 20)
    until("the abort to be counted", lambda: counted(in_front_of_llama.metrics(), "forebay_aborted_total", 'reason="client_closed"') >= 1, 5)


def test_a_loading_server_says_so_itself(gguf, tmp_path):
    port = free_port()
    with Relay(port) as relay, Forebay(tmp_path, routes=[catch_all("llama")], clusters=[cluster("llama", relay.port)]) as forebay:
        seen: list[int] = []
        with Process("llama-loading", llama_command(port, gguf)) as process:

            def loaded():
                headers, mark = marked()
                delivered = request(forebay.port, "GET", "/health", headers=headers)
                if delivered.status not in seen:
                    seen.append(delivered.status)
                    if delivered.status == 503:
                        recorded = exchange(relay, "x-test-mark", mark).response
                        assert json.loads(delivered.body)["error"]["message"] == "Loading model"
                        assert_handed_on(delivered, recorded)
                        assert delivered.get("x-forebay-reason") is None
                    elif delivered.status == 502:
                        assert delivered.get("x-forebay-reason") in ("connect_failed", "upstream_reset")
                return delivered.status == 200

            process.until("model loaded", loaded, 120)
        assert 503 in seen and seen[-1] == 200, seen
        until("the server to be gone", lambda: not answers(port, "/health"), 10)


def own_forebay(llama, tmp_path) -> Forebay:
    return Forebay(tmp_path, routes=[catch_all("llama")], clusters=[cluster("llama", llama.http_relay.port)])


def test_a_stream_outlives_the_reload_of_its_own_route(llama, tmp_path):
    with own_forebay(llama, tmp_path) as forebay:
        _, mark = marked()
        stream = EventStream(forebay.port, mark, tokens=300)
        stream.read(events=3)
        config = json.loads(forebay.file.read_text())
        pong = {"name": "pong", "match": {"path": {"exact": "/ping"}}, "respond": {"status": 200, "body": "pong"}}
        forebay.file.write_text(json.dumps(config | {"routes": [pong], "clusters": []}))
        forebay.until("the new routes", lambda: answers(forebay.port, "/ping") and answers(forebay.port, "/v1/models", 404), 10)
        assert not read_response(bytes(stream.received)).body.endswith(b"[DONE]\n\n"), "the stream ended before the reload"
        stream.read()
        stream.close()
        assert read_response(bytes(stream.received)).body == exchange(llama.http_relay, "x-test-mark", mark).response.body
        assert len(stream.times) > 290


def test_a_stream_is_finished_before_a_drained_proxy_ends(llama, tmp_path):
    with own_forebay(llama, tmp_path) as forebay:
        _, mark = marked()
        stream = EventStream(forebay.port, mark, tokens=60)
        stream.read(events=3)
        forebay.signal(signal.SIGTERM)
        stream.read()
        stream.close()
        assert read_response(bytes(stream.received)).body == exchange(llama.http_relay, "x-test-mark", mark).response.body
        assert len(stream.times) > 50
        assert forebay.wait() == 0
