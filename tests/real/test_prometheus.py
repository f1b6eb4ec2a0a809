"""A real Prometheus scrapes Forebay and answers the queries that DESIGN promises for autoscaling."""

import json
import shutil
import subprocess
import urllib.parse

import pytest

from harness.forebay import Forebay, answers, catch_all, cluster, request
from harness.process import Process, free_port

needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="the Debian package prometheus is not installed")
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian package prometheus) is not installed")


@pytest.fixture
def forebay(mlserver, tmp_path):
    routes = [{"name": "nobody", "match": {"path": {"prefix": "/nobody"}}, "cluster": "nobody"}, catch_all("iris")]
    clusters = [cluster("iris", mlserver.http), cluster("nobody", free_port())]
    with Forebay(tmp_path, routes=routes, clusters=clusters) as forebay:
        yield forebay


@needs_promtool
def test_the_metrics_page_is_clean(forebay):
    for path in ["/v2", "/nobody", "/v2/models/tulip"]:
        request(forebay.port, "GET", path)
    page = forebay.metrics()
    check = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")
    assert 'reason="connect_failed"' in page


@needs_prometheus
def test_prometheus_answers_the_autoscaling_query(forebay, tmp_path):
    port = free_port()
    job = {"job_name": "forebay", "static_configs": [{"targets": [f"127.0.0.1:{forebay.admin}"]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]

    def query(expression: str) -> dict[str, float]:
        answer = request(port, "GET", "/api/v1/query?query=" + urllib.parse.quote(expression))
        assert answer.status == 200, answer.body
        return {row["metric"].get("cluster", ""): float(row["value"][1]) for row in json.loads(answer.body)["data"]["result"]}

    def rate_while_serving() -> float:
        for _ in range(5):
            assert request(forebay.port, "GET", "/v2").status == 200
        return query("sum by (cluster) (rate(forebay_arrivals_total[1m]))").get("iris", 0)

    with Process("prometheus", command, cwd=tmp_path) as prometheus:
        prometheus.until("ready", lambda: answers(port, "/-/ready"))
        prometheus.until("a rate of arrivals", rate_while_serving, 30)
        assert query("up")[""] == 1
        served = query('sum by (cluster) (forebay_requests_total{code="200"})')["iris"]
        assert served >= 5
