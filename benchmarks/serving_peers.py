"""Serve one ONNX file with another framework, in an environment of its own, as its documentation shows it.

    PEER/bin/python benchmarks/serving_peers.py litserve|bentoml MODEL.onnx SIZE PORT

The environment needs `litserve` or `bentoml`, and onnxruntime, numpy and pillow. Two workers of one thread each and
batches of eight, as Plumbline's own service on two cores. POST /v1/predict takes a multipart field `file`. Uses nothing
of Plumbline; benchmarks/serving.py starts it by `--peer TOOL=PEER/bin/python`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH, WAIT = 8, 0.002  # pictures, seconds
SCORER = """
import io
import numpy as np
import onnxruntime
from PIL import Image

class Scorer:
    def __init__(self, path, size):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.size = size
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.name, self.answer = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    def pixels(self, picture):
        return np.asarray(picture.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR), np.float32)

    def __call__(self, pixels):
        return self.session.run([self.answer], {self.name: np.stack(pixels)})[0].tolist()
"""
LITSERVE = """
import sys
import litserve
from fastapi import Request
from scorer import Image, Scorer, io

class Api(litserve.LitAPI):
    def setup(self, device):
        self.scorer = Scorer(sys.argv[1], int(sys.argv[2]))

    def decode_request(self, request: Request):
        return self.scorer.pixels(Image.open(io.BytesIO(request["file"].file.read())))

    def batch(self, inputs):
        return inputs

    def predict(self, batch):
        return self.scorer(batch)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"probabilities": output}

if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT, api_path="/v1/predict")
    litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=2).run(
        host="127.0.0.1", port=int(sys.argv[3]), num_api_servers=1, log_level="error", generate_client_file=False)
"""
BENTOML = """
import os
import bentoml
from PIL import Image as pil
from PIL.Image import Image
from scorer import Scorer

@bentoml.service(workers=2, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Api:
    def __init__(self):
        self.scorer = Scorer(os.environ["MODEL"], int(os.environ["SIZE"]))

    @bentoml.api(route="/v1/predict", batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)
    def predict(self, file: list[Image]) -> list[list[float]]:
        return self.scorer([self.scorer.pixels(one) for one in file])
"""


def main(tool: str, model: str, size: str, port: str) -> int:
    """Write the framework's own few lines into a temporary folder, and serve until killed."""
    code = {"litserve": LITSERVE, "bentoml": BENTOML}[tool].replace("BATCH", str(BATCH)).replace("WAIT", str(WAIT))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "scorer.py").write_text(SCORER, encoding="utf-8")
        Path(folder, "api.py").write_text(code, encoding="utf-8")
        env = {**os.environ, "MODEL": model, "SIZE": size, "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1"}
        command = [sys.executable, "api.py", model, size, port]
        if tool == "bentoml":
            command = [sys.executable, "-m", "bentoml", "serve", "api:Api", "--host", "127.0.0.1", "--port", port]
        return subprocess.run(command, cwd=folder, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
