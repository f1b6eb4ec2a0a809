"""examples/laptop.yaml as it is shipped, but for its commands: three llama.cpp servers that do not fit together on one GPU budget."""

import json
import shlex
import threading

import httpx
import openai
import pytest
from conftest import llama_command
from harness.forebay import ROOT, Forebay, request
from harness.process import free_port, until

COMMANDS = {
    "qwen3-14b-q4_k_m.gguf": "llama-server --port ${PORT} -m models/qwen3-14b-q4_k_m.gguf -ngl 99 -np 4",
    "qwen2.5-coder-14b-q5_k_m.gguf": "llama-server --port ${PORT} -m models/qwen2.5-coder-14b-q5_k_m.gguf -ngl 99 -np 2",
    "nomic-embed-text-v1.5.gguf": "llama-server --port ${PORT} -m models/nomic-embed-text-v1.5.gguf -ngl 99 --embedding",
}


@pytest.fixture
def laptop(gguf, tmp_path):
    """The example with the same small model behind all three names, and a residency that a test can wait for."""
    text = (ROOT / "examples/laptop.yaml").read_text()
    ours = " ".join(shlex.quote(str(part)) for part in llama_command("PORT", gguf)).replace(" PORT ", " ${PORT} ")
    for command in COMMANDS.values():
        assert command in text
        text = text.replace(command, ours)
    assert text.count("min_residency: 60s") == 2
    text = text.replace("min_residency: 60s", "min_residency: 1s")
    port, admin = free_port(), free_port()
    text += f"\nadmin: {{address: 127.0.0.1:{admin}}}\nlisteners: [{{name: test, address: 127.0.0.1:{port}}}]\ndrain: {{delay: 0s, timeout: 10s}}\n"
    file = tmp_path / "laptop.yaml"
    file.write_text(text)
    with Forebay.from_file(file, port, admin) as forebay:
        yield forebay


def client(forebay: Forebay) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{forebay.port}/v1", api_key="none", max_retries=0, timeout=60, http_client=httpx.Client(trust_env=False)
    )


def ask(forebay: Forebay, model: str, **more):
    messages = [{"role": "user", "content": "Say hello."}]
    return client(forebay).chat.completions.create(model=model, messages=messages, max_tokens=8, **more)


def running(forebay: Forebay) -> set[str]:
    """The clusters that have a process which serves."""
    lines = (line for line in forebay.metrics().splitlines() if line.startswith("forebay_replicas{") and 'state="ready"' in line)
    return {line.split('cluster="')[1].split('"')[0] for line in lines if float(line.rsplit(" ", 1)[1]) > 0}


def starts(forebay: Forebay, cluster: str) -> int:
    clusters = json.loads(request(forebay.admin, "GET", "/api/clusters").body)
    found = [item for item in clusters["clusters"] if item["name"] == cluster]
    return found[0]["scale"]["starts"]


def test_models_are_listed_from_the_configuration_and_none_is_started(laptop):
    names = {model.id for model in client(laptop).models.list()}
    assert names == {"qwen3-14b", "gpt-4o-mini", "qwen2.5-coder-14b", "coder", "nomic-embed-text", "text-embedding-3-small"}
    assert client(laptop).models.retrieve("coder").id == "coder"
    assert running(laptop) == set()


def test_an_unknown_model_is_named_with_those_there_are(laptop):
    with pytest.raises(openai.NotFoundError) as error:
        ask(laptop, "gpt-5")
    assert error.value.response.headers["x-forebay-reason"] == "unknown_model"
    assert "qwen3-14b" in str(error.value) and "coder" in str(error.value)
    assert running(laptop) == set()


def test_a_model_is_loaded_evicted_and_brought_back(laptop):
    assert ask(laptop, "qwen3-14b").choices[0].message.content
    assert running(laptop) == {"chat"}
    assert ask(laptop, "coder").choices[0].message.content  # 12 + 14 GiB are more than 24
    assert running(laptop) == {"code"}
    assert ask(laptop, "gpt-4o-mini").choices[0].message.content
    assert running(laptop) == {"chat"}
    assert (starts(laptop, "chat"), starts(laptop, "code")) == (2, 1)


def test_requests_for_two_models_in_turn_are_answered_in_batches(laptop):
    answered: list[str] = []

    def one(model: str) -> None:
        assert ask(laptop, model).choices[0].message.content
        answered.append(model)

    threads = [threading.Thread(target=one, args=(model,)) for model in ["qwen3-14b", "coder"] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 12
    assert starts(laptop, "chat") + starts(laptop, "code") <= 3
    until("one model to be there", lambda: len(running(laptop)) == 1, 10)


def test_a_stream_that_waits_for_its_model_is_complete(laptop):
    chunks = list(ask(laptop, "coder", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_the_server_is_told_its_own_name(laptop):
    answer = ask(laptop, "gpt-4o-mini")
    assert answer.model in ("qwen3-14b", "gemma")  # llama.cpp answers with its alias or with what it was told
