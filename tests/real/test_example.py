"""`examples/kserve.yaml` as it stands, but for the ports, in front of MLServer."""

import json
import re

import grpc
from mlserver.grpc import dataplane_pb2, dataplane_pb2_grpc

from harness.forebay import ROOT, Forebay, request
from harness.process import free_port


def test_the_kserve_example_serves_both_protocols(mlserver, tmp_path):
    text = (ROOT / "examples/kserve.yaml").read_text()
    ports = {"8080": str(mlserver.http_relay.port), "8081": str(mlserver.grpc_relay.port)}

    def local(match: re.Match) -> str:
        port = ports.setdefault(match[2], str(free_port()))
        return f"127.0.0.1:{port}"

    file = tmp_path / "kserve.yaml"
    file.write_text(re.sub(r"(127\.0\.0\.1|0\.0\.0\.0|localhost):(\d+)", local, text))
    section = re.search(r"^listeners:.*?(?=^\w)", text, re.M | re.S)
    listen = re.search(r"address:\s*\"?[\w.]+:(\d+)", section[0])[1] if section else "9900"
    admin = re.search(r"^admin:.*?address:\s*\"?[\w.]+:(\d+)", text, re.M | re.S)
    with Forebay.from_file(file, int(ports[listen]), int(ports[admin[1]]) if admin else 9901) as forebay:
        assert request(forebay.port, "GET", "/v2/health/ready").status == 200
        tensor = {"name": "predict", "shape": [1, 4], "datatype": "FP64", "data": [[6.3, 3.3, 6.0, 2.5]]}
        body = json.dumps({"inputs": [tensor]}).encode()
        answer = request(forebay.port, "POST", "/v2/models/iris/infer", body, {"content-type": "application/json"})
        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["outputs"][0]["data"] == [2]
        with grpc.insecure_channel(f"127.0.0.1:{forebay.port}") as channel:
            stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ModelReady(dataplane_pb2.ModelReadyRequest(name="iris"), timeout=30).ready
