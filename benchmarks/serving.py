"""What serving promises, measured on loopback, beside the plain way: FastAPI that calls `model.predict`.

    python -m benchmarks.serving ROOT                         # all of it; ROOT is made, and kept for the next time
    python -m benchmarks.serving ROOT --only swap --seconds 220
    python -m benchmarks.serving ROOT --only peers --peer litserve=/tmp/lit/bin/python bentoml=/tmp/bento/bin/python

MobileNetV2 at 224 pixels with a small head (`make`), JPEGs of 320 x 240 of noise over coarse shapes, no cache. The load
comes from one process of its own over kept connections, so on two cores it takes its share of what it measures.

throughput  images a second and p99 of concurrent single posts: ours, the plain way, and a bare loop over the same file
peers       the same of other frameworks in environments of their own (benchmarks/serving_peers.py), ours beside them
swap        p99 of each second while the champion changes every `--every` seconds; failed requests
overload    ten times the clients that fill it: goodput, refusals, recovery
soak        80 percent of capacity with a promotion or rollback every minute: failed requests, memory
files       mutated picture files (benchmarks/mutated.py): statuses, the slowest, memory
cold        from the command to a ready /readyz, and memory of all processes
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.common.errors import UserError, run

HERE = Path(__file__).resolve().parents[1]
SIZE, CLASSES = 224, ("with_helmet", "without_helmet")
CROWD = 320
WRK = """
local posts, turn = {}, 0
function init(args)
  for number = 0, 63 do
    local file = assert(io.open("post_" .. number .. ".http", "rb"))
    posts[number] = file:read("*a")
    file:close()
  end
end
function request()
  turn = (turn + 1) % 64
  return posts[turn]
end
function delay()
  return math.random() * 2 * PAUSE
end
function done(summary, latency, requests)
  local broken = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('{"requests": %d, "refused": %d, "broken": %d, "microseconds": %d}\\n',
    summary.requests, summary.errors.status, broken, summary.duration))
end
"""
RAW = {"content-type": "application/octet-stream"}
PLAIN = """
import io, os, sys
import keras, numpy as np
from fastapi import FastAPI, File, UploadFile
from PIL import Image
model = keras.models.load_model(sys.argv[1])
app = FastAPI()
@app.get("/healthz")
def healthz(): return {}
@app.post("/v1/predict")
async def predict(file: UploadFile = File(...)):
    image = Image.open(io.BytesIO(await file.read())).convert("RGB").resize((224, 224))
    return {"softmax": model.predict(np.asarray(image, np.float32)[None], verbose=0)[0].tolist()}
import uvicorn
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


def make(root: Path) -> None:
    """Make the network, and a registry with it as versions 1 and 2 (another threshold); champion is 1."""
    import keras

    from plumbline.common.files import write_json
    from plumbline.models.export import EMBEDDING, PROBABILITIES, OnnxModel, export_onnx, with_embedding
    from plumbline.registry import bundle, versions
    from plumbline.registry.folder import save_mlflow_model

    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    weights = os.environ.get("PLUMBLINE_WEIGHTS")
    file = Path(weights) / "mobilenet_v2_1.0_224_notop.weights.h5" if weights else None
    backbone = keras.applications.MobileNetV2(input_shape=(SIZE, SIZE, 3), include_top=False, weights=None)
    if file is not None and file.is_file():
        backbone.load_weights(file)
    maps = backbone(keras.layers.Rescaling(1 / 127.5, -1)(pixels))
    head_input = keras.Input(maps.shape[1:])
    head = keras.Model(
        head_input, keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(head_input))
    )
    model = keras.Model(pixels, head(maps))
    model.save(root / "model.keras")
    opened = versions.open_registry(uri=f"sqlite:///{root}/registry/mlflow.db")
    for number, threshold in ((1, 0.4), (2, 0.6)):
        folder = root / f"version-{number}"
        (folder / bundle.HOME / "reference").mkdir(parents=True)
        export_onnx(with_embedding(model), folder.with_suffix(".onnx"))
        save_mlflow_model(folder, folder.with_suffix(".onnx"), SIZE, {PROBABILITIES: (-1, 2), EMBEDDING: (-1, -1)})
        random = np.random.default_rng(0)
        _, embeddings = OnnxModel(folder / bundle.ONNX)(random.integers(0, 256, (24, SIZE, SIZE, 3)))
        np.save(folder / bundle.HOME / "reference" / "embeddings.npy", embeddings, allow_pickle=False)
        np.save(folder / bundle.HOME / "reference" / "groups.npy", np.arange(24), allow_pickle=False)
        write_json(
            folder / bundle.HOME / "serving.json",
            {
                "candidate": "mobilenet_v2",
                "classes": list(CLASSES),
                "several_labels": False,
                "temperature": 1.0,
                "threshold": threshold,
                "violation_class": CLASSES[1],
            },
        )
        versions.register(opened, folder, bundle.seal(folder), "mobilenet_v2", {}, {}, {}, "Benchmark.")
    versions.move_champion(opened, 1, None)
    (root / "made").touch()


def jpegs(count: int = 64) -> list[bytes]:
    """Return JPEGs of 320 x 240, all different, about 20 KB each."""
    from PIL import Image

    found = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (320, 240), Image.Resampling.BICUBIC
        )
        noisy = np.clip(np.asarray(coarse, float) + random.normal(0, 6, (240, 320, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


@contextmanager
def serving(root: Path, **settings: Any) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Serve `root`; yield address, process, and the seconds until it was ready."""
    import httpx
    import yaml

    values = {"cache": 0, "record": "none", "poll_seconds": 0.5, **settings}
    (root / "params.yaml").write_text(yaml.safe_dump({"serving": values}), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    env.pop("MLFLOW_TRACKING_URI", None)
    started = time.perf_counter()
    with (root / "serve.log").open("w") as log:
        command = [sys.executable, "-m", "plumbline.cli", "serve", "--port", "0"]
        process = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log)
    try:
        while (found := re.search(r"serving on (\S+)", (root / "serve.log").read_text())) is None:
            time.sleep(0.02)
        while True:
            try:
                if httpx.get(f"{found[1]}/readyz", timeout=10).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        yield found[1], process, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@contextmanager
def plain_way(root: Path, port: int = 8197) -> Iterator[str]:
    """FastAPI that calls `model.predict`, as tutorials show it."""
    import httpx

    process = subprocess.Popen(
        [sys.executable, "-c", PLAIN, str(root / "model.keras"), str(port)], stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@dataclass
class Load:
    """What came of the requests: (when it was done, seconds, status) each; statuses below 0 had no answer."""

    done: list[tuple[float, float, int]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return counts by status, and rate and latencies of those that were answered."""
        good = np.array([seconds for _, seconds, status in self.done if status == 200])
        times = [at for at, _, _ in self.done]
        span = max(times) - min(times) if len(times) > 1 else 1.0
        quantiles = np.quantile(good, [0.5, 0.99]).round(4).tolist() if len(good) else None
        counts = {str(status): count for status, count in Counter(status for _, _, status in self.done).items()}
        return {"statuses": counts, "per_second": round(len(good) / span, 1), "p50_p99": quantiles}


def _request(host: str, content: bytes) -> bytes:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )
    head = f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


async def load(address: str, contents: list[bytes], clients: int, seconds: float, rate: float | None = None) -> Load:
    """Post pictures for `seconds`, from `clients` at once; `rate` pictures a second in all, or as fast as it goes."""
    host, port = address.removeprefix("http://").split(":")
    requests = [_request(host, content) for content in contents]
    result, end = Load(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        turn, due = number, time.perf_counter() + (number / rate if rate else 0)
        while (now := time.perf_counter()) < end:
            if rate:
                await asyncio.sleep(max(0, due - now))
                due += clients / rate
            began = time.perf_counter()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(host, int(port))
                assert reader is not None
                writer.write(requests[turn % len(requests)])
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                length = re.search(rb"content-length: (\d+)", head, re.I)
                await reader.readexactly(int(length[1]) if length else 0)
                status = int(head.split(b" ", 2)[1])
            except (OSError, EOFError, TimeoutError):
                status, writer = -1, None
            result.done.append((time.perf_counter(), time.perf_counter() - began, status))
            turn += clients
            if status == 429:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return result


def run_load(address: str, clients: int, seconds: float, rate: float | None = None) -> Load:
    """As `load`, with the benchmark's pictures."""
    return asyncio.run(load(address, jpegs(), clients, seconds, rate))


def bare_loop(root: Path, seconds: float) -> float:
    """Return images a second of decoding and scoring the same JPEGs in a loop: all cores, batches of 16."""
    from plumbline.imaging.decode import decode_resized
    from plumbline.models.export import OnnxModel

    model, contents = OnnxModel(root / "version-1" / "model.onnx"), jpegs()
    done, end, began = 0, time.perf_counter() + seconds, time.perf_counter()
    while time.perf_counter() < end:
        batch = [decode_resized(contents[(done + n) % len(contents)], (SIZE, SIZE)) for n in range(16)]
        model(np.stack(batch))
        done += 16
    return done / (time.perf_counter() - began)


def throughput(root: Path, seconds: float) -> dict[str, Any]:
    """Compare ours, the plain way and the bare loop, one after the other."""
    with serving(root) as (address, _, _):
        run_load(address, 16, 2)
        ours = run_load(address, 32, seconds).summary()
        lone = run_load(address, 1, min(5.0, seconds)).summary()
    with plain_way(root) as address:
        run_load(address, 4, 3)
        plain = run_load(address, 32, seconds).summary()
    bare = bare_loop(root, seconds)
    return {
        "ours": ours,
        "ours_one_client": lone,
        "plain": plain,
        "bare_loop_per_second": round(bare, 1),
        "times_the_plain_way": round(ours["per_second"] / max(plain["per_second"], 0.1), 2),
        "share_of_the_bare_loop": round(ours["per_second"] / bare, 3),
    }


@contextmanager
def another(tool: str, python: str, root: Path, port: int = 8198) -> Iterator[str]:
    """Serve the same ONNX file with another framework, in its own environment; yield its address once it answers."""
    import httpx

    script, model = HERE / "benchmarks" / "serving_peers.py", root / "version-1" / "model.onnx"
    command = [python, str(script), tool, str(model), str(SIZE), str(port)]
    with (root / f"{tool}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    address, picture = f"http://127.0.0.1:{port}", {"file": ("x.jpg", jpegs(1)[0], "image/jpeg")}
    try:
        while True:
            if process.poll() is not None:
                raise UserError(f"{tool} did not start: {root / f'{tool}.log'} says why.")
            try:
                if httpx.post(f"{address}/v1/predict", files=picture, timeout=60).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def peers(root: Path, seconds: float, pythons: dict[str, str]) -> dict[str, Any]:
    """Throughput and latencies of 32 clients at once, and of one: ours and each framework's, one after the other."""
    found: dict[str, Any] = {}

    def measured(address: str) -> dict[str, Any]:
        run_load(address, 16, 3)
        lone = run_load(address, 1, min(5.0, seconds)).summary()
        return {"32 clients": run_load(address, 32, seconds).summary(), "one client": lone}

    with serving(root) as (address, _, _):
        found["ours"] = measured(address)
    for tool, python in pythons.items():
        with another(tool, python, root) as address:
            found[tool] = measured(address)
    return found


def promote(root: Path, version: int) -> None:
    """Move the alias, as `plumbline rollback` and `promote` do."""
    from plumbline.registry import versions

    opened = versions.open_registry(uri=f"sqlite:///{root}/registry/mlflow.db")
    opened.client.set_registered_model_alias("plumbline", "champion", str(version))


def swap(root: Path, seconds: float, every: float = 2.0) -> dict[str, Any]:
    """Change the champion every `every` seconds under half the load that fills it."""
    promote(root, 1)
    with serving(root, poll_seconds=0.2) as (address, _, _):
        capacity = run_load(address, 16, 3).summary()["per_second"]

        async def both() -> tuple[Load, list[float]]:
            asked = asyncio.ensure_future(load(address, jpegs(), 16, seconds, capacity / 2))
            moved: list[float] = []
            await asyncio.sleep(max(3, seconds / 10))  # the last of 350 calm requests are no p99 to compare with
            while not asked.done() and time.perf_counter() < started + seconds - 2:
                await asyncio.to_thread(promote, root, 2 - len(moved) % 2)
                moved.append(time.perf_counter())
                await asyncio.sleep(every)
            return await asked, moved

        started = time.perf_counter()
        found, moved = asyncio.run(both())
    promote(root, 1)
    calm = [took for at, took, status in found.done if status == 200 and at < moved[0] - 0.5]
    near = [took for at, took, status in found.done if status == 200 and any(0 <= at - when <= 1 for when in moved)]
    before, around = float(np.quantile(calm, 0.99)), float(np.quantile(near, 0.99))
    failed = sum(status != 200 for _, _, status in found.done)
    return {"swaps": len(moved), "failed": failed, "p99_before": before, "p99_around": around, "ratio": around / before}


def overload(root: Path, seconds: float) -> dict[str, Any]:
    """Ten times the posts that fill it, against a queue of 32.

    They come from `wrk`, because asking ten times over from Python takes more than one of two cores, which the service
    then lacks.
    """
    with serving(root, queue=32) as (address, process, _):
        capacity = run_wrk(root, address, 32, seconds)
        crowd = run_wrk(root, address, CROWD, seconds, 10 * capacity["per_second"])
        after = run_wrk(root, address, 8, 2)
        memory = memory_of(process.pid)
    goodput = crowd["per_second"] / capacity["per_second"]
    times_over = crowd["offered_per_second"] / capacity["per_second"]
    return {
        "capacity": capacity,
        "crowd": crowd,
        "times_over": round(times_over, 1),
        "goodput": round(goodput, 2),
        "after": after,
        "memory_mb": memory,
    }


def run_wrk(root: Path, address: str, clients: int, seconds: float, rate: float | None = None) -> dict[str, Any]:
    """Post pictures from `clients` connections of wrk for `seconds`, `rate` a second or as fast as answers come.

    Returns what was offered and what was answered with 200, both a second; refusals (429 and all other statuses from
    400), broken connections, and the generator's share of a core. UserError where wrk is not installed.
    """
    if (wrk := shutil.which("wrk")) is None:
        raise UserError("overload needs the load generator wrk, which is not installed: apt-get install wrk.")
    pause = 0 if rate is None else 1000 * clients / rate
    (root / "posts.lua").write_text(WRK.replace("PAUSE", f"{pause:.3f}"), encoding="utf-8")
    for number, content in enumerate(jpegs()):
        (root / f"post_{number}.http").write_bytes(_request(address.removeprefix("http://"), content))
    command = [wrk, "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "60", "-s", "posts.lua"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([*command, address], cwd=root, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(said.splitlines()[-1])
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    took = found["microseconds"] / 1e6
    return {
        "offered_per_second": round(found["requests"] / took, 1),
        "per_second": round((found["requests"] - found["refused"]) / took, 1),
        "refused": found["refused"],
        "broken": found["broken"],
        "generator_cores": round(busy / took, 2),
    }


def soak(root: Path, seconds: float, every: float = 60.0) -> dict[str, Any]:
    """Load at 80 percent of capacity, the champion changed every minute or fifth of the time; memory each time."""
    promote(root, 1)
    with serving(root) as (address, process, _):
        capacity = run_load(address, 32, 5).summary()["per_second"]

        async def both() -> tuple[Load, list[int]]:
            asked = asyncio.ensure_future(load(address, jpegs(), 32, seconds, 0.8 * capacity))
            memory: list[int] = []
            moves = 0
            while not asked.done():
                await asyncio.wait([asked], timeout=min(every, seconds / 5))
                memory.append(memory_of(process.pid))
                moves += 1
                await asyncio.to_thread(promote, root, 1 + moves % 2)
            return await asked, memory

        found, memory = asyncio.run(both())
    promote(root, 1)
    return {"capacity": capacity, **found.summary(), "memory_mb": memory}


def files(root: Path, count: int) -> dict[str, Any]:
    """Post mutated files; none may be a 5xx, and none may take long."""
    import httpx
    from PIL import Image

    from benchmarks.mutated import mutated

    seeds = jpegs(2)
    for kind in ("PNG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(seeds[0])).resize((64, 48)).save(buffer, kind)
        seeds.append(buffer.getvalue())
    statuses: Counter[int] = Counter()
    slowest = 0.0
    with serving(root) as (address, process, _), httpx.Client(base_url=address, timeout=60) as client:
        before = memory_of(process.pid)
        for seed in range(count):
            random = np.random.default_rng(seed)
            content = mutated(seeds[seed % len(seeds)], seeds, random)
            began = time.perf_counter()
            statuses[client.post("/v1/predict", content=content, headers=RAW).status_code] += 1
            slowest = max(slowest, time.perf_counter() - began)
        after = memory_of(process.pid)
    return {"files": count, "statuses": dict(statuses), "slowest": round(slowest, 2), "memory_mb": [before, after]}


def cold(root: Path, _: float = 0) -> dict[str, Any]:
    """A start with the version on the shelf, and the memory (proportional set size) of all processes."""
    with serving(root):
        pass
    with serving(root) as (address, process, seconds):
        run_load(address, 8, 2)
        return {"seconds": round(seconds, 2), "memory_mb": memory_of(process.pid)}


def memory_of(pid: int) -> int:
    """Return the proportional set size of a process and its children in megabytes: what is shared counts once."""
    import psutil

    total = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return round(total / 1e6)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--only", choices=["throughput", "peers", "swap", "overload", "soak", "files", "cold"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--peer", nargs="+", default=[], metavar="TOOL=PYTHON", help="litserve or bentoml, its Python")
    given = parser.parse_args()
    root = given.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "made").exists():
        make(root)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "cold": lambda: cold(root),
        "throughput": lambda: throughput(root, given.seconds),
        "peers": lambda: peers(root, given.seconds, dict(one.split("=", 1) for one in given.peer)),
        "swap": lambda: swap(root, given.seconds),
        "overload": lambda: overload(root, given.seconds),
        "soak": lambda: soak(root, given.seconds),
        "files": lambda: files(root, given.files),
    }
    if not given.peer:
        parts.pop("peers")
        print("no --peer was named: no other framework is measured", file=sys.stderr)
    for name, part in parts.items():
        if given.only in (None, name):
            print(json.dumps({name: part()}, indent=1), flush=True)


if __name__ == "__main__":
    run(main)
