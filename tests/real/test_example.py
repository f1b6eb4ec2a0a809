"""`examples/kserve.yaml` as it stands, but for its addresses, in front of MLServer."""

import json

import grpc
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc import dataplane_pb2_grpc

from harness.forebay import ROOT, Forebay, request
from harness.process import free_port


def test_the_kserve_example_serves_both_protocols(mlserver, tmp_path):
    text = (ROOT / "examples/kserve.yaml").read_text()
    port, admin = free_port(), free_port()
    places = {
        "0.0.0.0:8080": port,
        "mlserver.ml.svc:8080": mlserver.http_relay.port,
        "mlserver.ml.svc:8081": mlserver.grpc_relay.port,
        "sklearn-predictor.ml.svc:8080": free_port(),
    }
    for written, local in places.items():
        assert text.count(written) == 1, f"{written} in {text}"
        text = text.replace(written, f"127.0.0.1:{local}")
    assert "admin:" not in text, "it has the default address"
    file = tmp_path / "kserve.yaml"
    file.write_text(text + f'\nadmin: {{address: "127.0.0.1:{admin}"}}\n')

    tensor = {"name": "predict", "shape": [1, 4], "datatype": "FP64", "data": [[6.3, 3.3, 6.0, 2.5]]}
    with Forebay.from_file(file, port, admin) as forebay:
        assert request(forebay.port, "GET", "/v2/health/ready").status == 200
        assert json.loads(request(forebay.port, "GET", "/v2/models/iris").body)["name"] == "iris"
        body = json.dumps({"inputs": [tensor]}).encode()
        answer = request(forebay.port, "POST", "/v2/models/iris/infer", body, {"content-type": "application/json"})
        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["outputs"][0]["data"] == [2]

        with grpc.insecure_channel(f"127.0.0.1:{forebay.port}") as channel:
            stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ModelReady(pb.ModelReadyRequest(name="iris"), timeout=30).ready
            contents = pb.InferTensorContents(fp64_contents=tensor["data"][0])
            sent = pb.ModelInferRequest.InferInputTensor(name="predict", datatype="FP64", shape=[1, 4], contents=contents)
            answer = stub.ModelInfer(pb.ModelInferRequest(model_name="iris", inputs=[sent]), timeout=30)
            assert list(answer.outputs[0].contents.int64_contents) == [2]

        # Nobody runs the V1 server of the example.
        refused = request(forebay.port, "GET", "/v1/models")
        assert (refused.status, refused.get("x-forebay-reason")) == (502, "connect_failed")
