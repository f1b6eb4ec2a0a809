"""What scripts rely on: exit codes, positions, signals, restarts."""

import json
import re
import signal
import socket
import subprocess
import time

import pytest

from harness.forebay import BINARY, Forebay, answers, catch_all, cluster, request
from harness.process import Process, free_port

GOOD = """\
listeners: [{{name: l, address: "127.0.0.1:{port}"}}]
admin: {{address: "127.0.0.1:{admin}"}}
routes: [{{name: ping, match: {{path: {{exact: /ping}}}}, respond: {{status: 200, body: pong}}}}]
"""


def forebay(*arguments, stdin: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([BINARY, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=30)


@pytest.fixture
def ping(tmp_path):
    """A file with one fixed response, and its ports."""
    port, admin = free_port(), free_port()
    file = tmp_path / "ping.yaml"
    file.write_text(GOOD.format(port=port, admin=admin))
    return file, port, admin


def test_validate_accepts_a_good_file(ping):
    result = forebay("validate", "-c", ping[0])
    assert result.returncode == 0, result.stderr


def test_validate_names_every_problem_and_its_place(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("listeners:\n- name: l\n  adress: 127.0.0.1:1\nroutes:\n- name: r\n  cluster: nowhere\nworkers: many\n")
    result = forebay("validate", "-c", file)
    said = result.stdout + result.stderr
    assert result.returncode == 1
    places = set(re.findall(rf"{re.escape(str(file))}:(\d+):(\d+)", said))
    assert {("3", "3"), ("6", "12"), ("7", "10")} <= places, said
    assert "address" in said, "did you mean"


def test_validate_of_an_unreadable_file_exits_2(tmp_path):
    result = forebay("validate", "-c", tmp_path / "absent.yaml")
    assert result.returncode == 2
    assert "absent.yaml" in result.stdout + result.stderr


def test_validate_reads_standard_input(ping):
    assert forebay("validate", "-c", "-", stdin=ping[0].read_text()).returncode == 0
    assert forebay("validate", "-c", "-", stdin="routes: 3\n").returncode == 1


def test_the_schema_is_json_schema(ping):
    result = forebay("schema")
    assert result.returncode == 0
    schema = json.loads(result.stdout)
    assert "json-schema.org" in schema["$schema"]
    assert {"listeners", "routes", "clusters", "admin"} <= set(schema["properties"])
    unresolved = [ref for ref in re.findall(r'"\$ref": *"#/\$defs/([^"]+)"', result.stdout) if ref not in schema["$defs"]]
    assert not unresolved


def test_the_version_is_printed():
    assert re.search(r"\d+\.\d+\.\d+", forebay("version").stdout)


def test_an_unknown_command_is_refused():
    result = forebay("fly")
    assert result.returncode == 2
    assert "fly" in result.stderr


def test_a_bad_file_ends_run_before_any_socket_is_bound(tmp_path):
    """The ports are taken: had it tried to bind them first, it would complain about that."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as taken_too:
        file = tmp_path / "bad.yaml"
        good = GOOD.format(port=taken.getsockname()[1], admin=taken_too.getsockname()[1])
        file.write_text(good.replace("respond:", "responds:"))
        result = forebay("run", "-c", file)
    assert result.returncode == 1
    assert f"{file}:3:" in result.stdout + result.stderr
    assert "in use" not in result.stderr.lower()


def test_a_killed_proxy_can_be_started_again_at_once_on_its_ports(ping):
    file, port, admin = ping
    first = Forebay.from_file(file, port, admin)
    with first, socket.create_connection(("127.0.0.1", port)):
        assert request(port, "GET", "/ping").body == b"pong"
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        with Forebay.from_file(file, port, admin):
            assert request(port, "GET", "/ping").body == b"pong"


def test_sigterm_ends_an_idle_proxy_with_0(ping):
    with Forebay.from_file(*ping) as running:
        running.signal(signal.SIGTERM)
        assert running.wait() == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path, first):
    """While a request is open that nobody will answer: a drain would take 300 s, and 5 s after SIGINT."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        clusters, routes = [cluster("silent", silent.getsockname()[1])], [catch_all("silent")]
        with Forebay(tmp_path, clusters=clusters, routes=routes, drain={"delay": "0s", "timeout": "300s"}) as running:
            with socket.create_connection(("127.0.0.1", running.port)) as waiting:
                waiting.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                upstream, _ = silent.accept()
                with upstream:
                    began = time.monotonic()
                    running.signal(first)
                    running.until("drain", lambda: answers(running.admin, "/readyz", 503), 10)
                    running.signal(signal.SIGINT)
                    running.wait(60)
                    assert time.monotonic() - began < (5 if first == signal.SIGINT else 60)


def test_status_routes_reload_and_drain_act_on_a_running_proxy(ping):
    file, port, admin = ping
    url = f"http://127.0.0.1:{admin}"
    with Forebay.from_file(file, port, admin) as running:
        status = forebay("status", "--admin", url, "--json")
        assert status.returncode == 0, status.stderr
        routes = forebay("routes", "--admin", url)
        assert "ping" in routes.stdout, routes.stderr
        file.write_text(file.read_text().replace("pong", "changed"))
        reloaded = forebay("reload", "--admin", url)
        assert reloaded.returncode == 0, reloaded.stderr
        assert request(port, "GET", "/ping").body == b"changed"
        file.write_text(file.read_text().replace("respond:", "responds:"))
        refused = forebay("reload", "--admin", url)
        assert refused.returncode == 1
        assert f"{file}:3:" in refused.stdout + refused.stderr
        assert request(port, "GET", "/ping").body == b"changed"
        drained = forebay("drain", "--wait", "--admin", url)
        assert drained.returncode == 0, drained.stderr
        assert running.wait() == 0


def test_proxy_to_needs_no_file(mlserver, tmp_path):
    listen = free_port()
    command = [BINARY, "proxy", "--to", f"http://127.0.0.1:{mlserver.http}", "--listen", f"127.0.0.1:{listen}"]
    with Process("proxy", command, cwd=tmp_path) as proxy:
        proxy.until("an answer", lambda: answers(listen, "/v2/health/ready"))
        assert f"127.0.0.1:{listen}" in proxy.log
        admin = next(port for port in map(int, re.findall(r"127\.0\.0\.1:(\d+)", proxy.log)) if port not in (listen, mlserver.http))
        assert answers(admin, "/readyz")
        assert "forebay_requests_total" in request(admin, "GET", "/metrics").body.decode()
        proxy.end()
        assert proxy.child.returncode == 0
