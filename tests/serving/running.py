"""A project with a registry, and the real service over HTTP before it."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from PIL import Image

from plumbline.registry import versions as registry

TOP = Path(__file__).resolve().parents[2]
PATIENCE = 120


class Project:
    """A project's folder with a registry; `champion(N)` promotes."""

    def __init__(self, root, registered):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        if registered is not None:
            shutil.copytree(registered, root / "registry")
        self.settings()

    def settings(self, **serving):
        (self.root / "params.yaml").write_text(yaml.safe_dump({"serving": {"poll_seconds": 0.2, **serving}}))
        return self

    @property
    def environment(self):
        """As on a user's machine, this code first."""
        known = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        return {**known, "PYTHONPATH": str(TOP)}

    @property
    def uri(self):
        return f"sqlite:///{self.root}/registry/mlflow.db"

    def alias(self, name, version):
        registry.open_registry(uri=self.uri).client.set_registered_model_alias("plumbline", name, str(version))
        return self

    def champion(self, version):
        return self.alias("champion", version)

    def folder(self, version):
        opened = registry.open_registry(uri=self.uri)
        address = opened.client.get_model_version_download_uri("plumbline", str(version))
        return registry.folder_of(self.uri, address)

    @contextmanager
    def serving(self, *options, ready=True, env=None):
        """The service, as `plumbline serve` starts it; yields a `Running`."""
        command = [sys.executable, "-m", "plumbline.cli", "serve", "--port", "0", *options]
        environment = {**self.environment, **(env or {})}
        log = (self.root / "serve.log").open("w+")
        process = subprocess.Popen(command, cwd=self.root, env=environment, stdout=log, stderr=subprocess.STDOUT)
        running = Running(process, self.root / "serve.log")
        try:
            running.wait_for_address()
            if ready:
                running.wait_ready()
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


class Running:
    """A service that runs."""

    def __init__(self, process, log):
        self.process, self.log = process, log
        self.client = None

    def wait_for_address(self):
        found = until(lambda: re.search(r"serving on (\S+)", self.log.read_text()) or self.process.poll())
        assert not isinstance(found, int), self.log.read_text()
        self.url = found[1]
        self.client = httpx.Client(base_url=self.url, timeout=30)
        until(self.answers)

    def answers(self):
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self, version=None):
        def ready():
            answer = httpx.get(f"{self.url}/readyz", timeout=30)
            return answer.status_code == 200 and (version is None or answer.json()["version"] == version)

        until(ready, lambda: f"{self.client.get('/readyz').text}\n{self.log.read_text()}")

    def ready(self):
        answer = httpx.get(f"{self.url}/readyz", timeout=30)  # afresh: a kept connection may be a dead worker's
        return answer.status_code, answer.json()

    def predict(self, *contents, **options):
        return self.client.post("/v1/predict", files=[("file", ("p.png", one)) for one in contents], **options)


def until(condition, say=lambda: "", seconds=PATIENCE):
    """Wait for a condition; fails with what `say` says."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain: {say()}")


def png(rgb):
    """A picture (H, W, 3) as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()
