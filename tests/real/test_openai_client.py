"""The `openai` client through Forebay: streams work, and our own errors raise its proper exceptions."""

import shlex

import httpx
import openai
import pytest

from conftest import llama_command
from harness.forebay import Forebay, catch_all


def client(forebay, prefix: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{forebay.port}{prefix}", api_key="none", max_retries=0, timeout=60, http_client=httpx.Client(trust_env=False)
    )


def ask(openai_client: openai.OpenAI, **more):
    messages = [{"role": "user", "content": "Say hello."}]
    return openai_client.chat.completions.create(model="gemma", messages=messages, max_tokens=16, **more)


def test_a_completion_is_answered(in_front_of_llama):
    answer = ask(client(in_front_of_llama, "/v1"))
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def test_a_completion_is_streamed(in_front_of_llama):
    chunks = list(ask(client(in_front_of_llama, "/v1"), stream=True, stream_options={"include_usage": True}))
    assert len(chunks) > 3
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.completion_tokens > 0


def test_nobody_serving_is_an_internal_server_error(in_front_of_llama):
    with pytest.raises(openai.InternalServerError) as error:
        ask(client(in_front_of_llama, "/empty/v1"))
    assert error.value.status_code == 503
    assert error.value.response.headers["x-forebay-reason"] == "no_endpoint"
    assert_openai_shape(error.value, "no_endpoint")


def test_an_unknown_route_is_not_found(in_front_of_llama):
    with pytest.raises(openai.NotFoundError) as error:
        ask(client(in_front_of_llama, "/nowhere/v1"))
    assert error.value.response.headers["x-forebay-reason"] == "no_route"
    assert_openai_shape(error.value, "no_route")


def test_an_error_of_the_server_stays_its_own(in_front_of_llama):
    with pytest.raises(openai.BadRequestError) as error:
        client(in_front_of_llama, "/v1").chat.completions.create(model="gemma", messages="nonsense")
    assert "x-forebay-reason" not in error.value.response.headers


def started_by(command: list[str], tmp_path) -> Forebay:
    """A cluster at zero whose clients hear of it every 200 ms while they wait."""
    scale = {"process": {"command": command}}
    model = {"name": "model", "server": "llama.cpp", "queue": {"heartbeat": "200ms"}, "scale": scale}
    return Forebay(tmp_path, routes=[catch_all("model")], clusters=[model])


def test_a_stream_is_read_to_its_end_after_heartbeats(gguf, tmp_path):
    llama = shlex.join(str(part) for part in llama_command("PORT", gguf)).replace("PORT", "${PORT}")
    with started_by(["sh", "-c", f"sleep 1; exec {llama}"], tmp_path) as forebay:
        with client(forebay, "/v1").chat.completions.with_streaming_response.create(
            model="gemma", messages=[{"role": "user", "content": "Say hello."}], max_tokens=16, stream=True
        ) as raw:
            assert "x-forebay-cold-start" not in raw.headers, "the head came before there was an answer"
            lines = list(raw.iter_lines())
        assert lines.count(": waiting for model") > 2
        assert [line for line in lines if line][-1] == "data: [DONE]"
    with started_by(["sh", "-c", f"sleep 1; exec {llama}"], tmp_path) as forebay:
        chunks = list(ask(client(forebay, "/v1"), stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-1].usage.completion_tokens > 0


def test_a_start_that_fails_after_heartbeats_is_an_error(tmp_path):
    with started_by(["sh", "-c", "sleep 0.5; exit 3", "${PORT}"], tmp_path) as forebay:
        stream = ask(client(forebay, "/v1"), stream=True)
        with pytest.raises(openai.APIError) as error:
            list(stream)
        assert error.value.code == "start_failed"
        assert error.value.message == "the model server could not be started"


def assert_openai_shape(error: openai.APIStatusError, reason: str) -> None:
    body = error.response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"] and body["param"] is None
    assert error.code == reason
