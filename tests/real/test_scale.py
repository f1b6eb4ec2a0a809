"""llama.cpp's server as a process of the proxy: from zero, back to zero when it is idle, and from zero again."""

import threading

from conftest import llama_command
from harness.forebay import Forebay, catch_all, marked, request
from harness.process import until
from harness.sse import EventStream
from harness.wire import Message, read_response


def started_on_demand(gguf, tmp_path, idle: str) -> Forebay:
    command = [str(part) for part in llama_command("${PORT}", gguf)]
    llama = {"name": "llama", "server": "llama.cpp", "scale": {"idle": idle, "process": {"command": command}}}
    return Forebay(tmp_path, routes=[catch_all("llama")], clusters=[llama])


def replicas(forebay: Forebay, state: str) -> float:
    """How many replicas are in this state."""
    lines = (line for line in forebay.metrics().splitlines() if line.startswith("forebay_replicas{") and f'state="{state}"' in line)
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def streamed_chat(forebay: Forebay) -> Message:
    """One streamed chat completion, read to its end."""
    _, mark = marked()
    stream = EventStream(forebay.port, mark, tokens=40)
    stream.read()
    stream.close()
    assert len(stream.times) > 30
    return read_response(bytes(stream.received))


def test_the_first_chat_starts_the_server_and_nobody_sees_it_load(gguf, tmp_path, measured):
    with started_on_demand(gguf, tmp_path, "3s") as forebay:
        assert replicas(forebay, "ready") == 0
        others: list[Message] = []
        waiting = [threading.Thread(target=lambda: others.append(request(forebay.port, "GET", "/v1/models"))) for _ in range(20)]
        for thread in waiting:
            thread.start()
        chat = streamed_chat(forebay)
        for thread in waiting:
            thread.join()
        assert chat.status == 200
        assert chat.body.rstrip().endswith(b"data: [DONE]")
        assert [other.status for other in others] == [200] * 20
        measured(f"the first chat waited {chat.get('x-forebay-cold-start')} ms")

        until("the idle server to be gone", lambda: replicas(forebay, "ready") + replicas(forebay, "stopping") == 0, 30)
        again = streamed_chat(forebay)
        assert again.status == 200
        assert int(again.get("x-forebay-cold-start")) > 0
        assert again.body.rstrip().endswith(b"data: [DONE]")
