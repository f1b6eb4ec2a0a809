"""MLServer's Open Inference Protocol over gRPC, through Forebay's cleartext HTTP/2."""

import grpc
import pytest
from mlserver.grpc import dataplane_pb2 as pb

from harness.process import until
from harness.wire import h2_data

SERVICE = "/inference.GRPCInferenceService/"
SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]
UNBOUNDED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@pytest.fixture
def channel(in_front_of_mlserver):
    with grpc.insecure_channel(f"127.0.0.1:{in_front_of_mlserver.port}", options=UNBOUNDED) as channel:
        yield channel


@pytest.fixture
def direct(mlserver):
    with grpc.insecure_channel(f"127.0.0.1:{mlserver.grpc}", options=UNBOUNDED) as channel:
        yield channel


def infer_request(rows: list[list[float]], outputs: list[str], model: str = "iris") -> bytes:
    contents = pb.InferTensorContents(fp64_contents=[value for row in rows for value in row])
    tensor = pb.ModelInferRequest.InferInputTensor(name="predict", datatype="FP64", shape=[len(rows), 4], contents=contents)
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], outputs=wanted).SerializeToString()


def call(channel: grpc.Channel, method: str, message: bytes) -> bytes:
    """A unary call whose messages stay bytes."""
    return channel.unary_unary(SERVICE + method)(message, timeout=60)


def last_message(mlserver, delivered: bytes) -> bytes:
    """The message of MLServer that is as long as the one delivered, from the bytes it sent."""

    def framed():
        for connection in mlserver.grpc_relay.connections:
            for data in h2_data(bytes(connection.received)).values():
                if data[1:5] == len(delivered).to_bytes(4, "big") and len(data) == len(delivered) + 5 and data[5:] == delivered:
                    return data

    return until("the delivered message among the recorded ones", framed, 5)


def test_health_and_metadata_are_handed_on(channel, direct):
    for method, message in [("ServerReady", b""), ("ServerMetadata", b""), ("ModelMetadata", pb.ModelMetadataRequest(name="iris").SerializeToString())]:
        delivered = call(channel, method, message)
        assert delivered == call(direct, method, message)
    assert pb.ModelMetadataResponse.FromString(delivered).name == "iris"


def test_an_inference_is_answered_by_the_model(mlserver, channel):
    delivered = call(channel, "ModelInfer", infer_request([SETOSA, VIRGINICA], ["predict"]))
    assert last_message(mlserver, delivered)
    assert list(pb.ModelInferResponse.FromString(delivered).outputs[0].contents.int64_contents) == [0, 2]


def test_five_mebibytes_pass_unchanged_in_both_directions(mlserver, channel):
    message = infer_request([[step / 7e4, 3.5, 1.4, 0.2] for step in range(240_000)], ["predict_proba"])
    assert len(message) >= 5 << 20
    delivered = call(channel, "ModelInfer", message)
    assert len(delivered) >= 5 << 20
    assert last_message(mlserver, delivered)
    sent = [data for c in mlserver.grpc_relay.connections for data in h2_data(bytes(c.sent)[24:]).values()]
    assert any(data[5:] == message for data in sent), "the request reached the server unchanged"


def test_an_unknown_model_is_the_servers_own_status(channel, direct):
    message = infer_request([SETOSA], ["predict"], model="tulip")
    with pytest.raises(grpc.RpcError) as through:
        call(channel, "ModelInfer", message)
    with pytest.raises(grpc.RpcError) as directly:
        call(direct, "ModelInfer", message)
    assert through.value.code() == directly.value.code() == grpc.StatusCode.NOT_FOUND
    assert through.value.details() == directly.value.details()
    assert "x-forebay-reason" not in dict(through.value.initial_metadata() or ()) | dict(through.value.trailing_metadata() or ())


def test_an_unknown_method_is_the_servers_own_status(channel):
    with pytest.raises(grpc.RpcError) as error:
        call(channel, "Sing", b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_bidirectional_stream_passes(channel, direct):
    message = infer_request([SETOSA], ["predict"])

    def stream(through: grpc.Channel):
        answers = list(through.stream_stream(SERVICE + "ModelStreamInfer")(iter([message]), timeout=30))
        return [list(pb.ModelInferResponse.FromString(answer).outputs[0].contents.int64_contents) for answer in answers]

    assert stream(channel) == stream(direct) == [[0]]


def test_an_answer_of_ours_is_a_grpc_status(mlserver, tmp_path):
    from harness.forebay import Forebay

    empty = {"name": "empty", "endpoints": [{"address": "127.0.0.1:9", "labels": {"v": "1"}}], "subset": {"v": "2"}}
    with Forebay(tmp_path, routes=[{"name": "empty", "cluster": "empty"}], clusters=[empty]) as forebay:
        with grpc.insecure_channel(f"127.0.0.1:{forebay.port}") as channel, pytest.raises(grpc.RpcError) as error:
            call(channel, "ServerReady", b"")
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    seen = dict(error.value.initial_metadata() or ()) | dict(error.value.trailing_metadata() or ())
    assert seen.get("x-forebay-reason") == "no_endpoint"
