"""MLServer with one scikit-learn model of iris, on ports of its own."""

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.forebay import answers
from harness.process import Process, free_port

#: The name of the model, whatever it was trained on.
MODEL = "iris"


class MLServer:
    """An MLServer that can be killed and started again on the same ports; starts when made, and is not ready yet."""

    def __init__(self, directory: Path, version: str = "v1", mislabelled: int = 0):
        self.directory = directory
        self.http, self.grpc, metrics = free_port(), free_port(), free_port()
        _train(directory / MODEL, version, mislabelled)
        settings = {
            "host": "127.0.0.1",
            "http_port": self.http,
            "grpc_port": self.grpc,
            "metrics_port": metrics,
            "grpc_max_message_length": 64 << 20,
            "parallel_workers": 0,
            "debug": False,
            # Both are what its streaming methods ask for.
            "gzip_enabled": False,
            "metrics_endpoint": None,
        }
        (directory / "settings.json").write_text(json.dumps(settings))
        self.start()

    def start(self) -> None:
        """Starts the process; `ready` waits for it."""
        command = [Path(sys.executable).parent / "mlserver", "start", self.directory]
        self.process = Process("mlserver", command, cwd=self.directory)

    def ready(self) -> None:
        """Waits until its model is loaded."""
        self.process.until("ready", lambda: answers(self.http, f"/v2/models/{MODEL}/ready"), 120)

    def model(self):
        """The model itself, to be asked in this process."""
        import joblib

        return joblib.load(self.directory / MODEL / "model.joblib")

    def __enter__(self) -> "MLServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.end()


def _train(directory: Path, version: str, mislabelled: int) -> None:
    """Trains on scikit-learn's bundled iris, of which so many samples get the next label, and writes what MLServer's
    sklearn runtime loads."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    samples, labels = load_iris(return_X_y=True)
    for at in random.Random(1).sample(range(len(labels)), mislabelled):
        labels[at] = (labels[at] + 1) % 3
    directory.mkdir(parents=True)
    joblib.dump(LogisticRegression(max_iter=1000).fit(samples, labels), directory / "model.joblib")
    parameters = {"uri": "./model.joblib", "version": version}
    settings = {"name": MODEL, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": parameters}
    (directory / "model-settings.json").write_text(json.dumps(settings))


def infer_body(rows: Iterable[list[float]], outputs: Iterable[str], **more) -> bytes:
    """A V2 inference request as JSON; `more` is added to it, such as its `id`."""
    rows = list(rows)
    tensor = {"name": "predict", "shape": [len(rows), 4], "datatype": "FP64", "data": rows}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": name} for name in outputs]} | more).encode()
