"""The files for containers and Kubernetes, as far as they can be checked without building or starting any."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from flows.setup import POOLS

REPOSITORY = Path(__file__).resolve().parents[1]
KUBERNETES = REPOSITORY / "deploy/kubernetes"
DOCKERFILE = (REPOSITORY / "docker/plumbline.Dockerfile").read_text(encoding="utf-8")
SERVING = (REPOSITORY / "docker/serving.Dockerfile").read_text(encoding="utf-8")
SERVICES_FILE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = SERVICES_FILE["services"]
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
JOB = json.loads((KUBERNETES / "job.json").read_text(encoding="utf-8"))
DOCUMENTS = [
    item
    for file in ("worker.yaml", "candidates.yaml", "serving.yaml")
    for document in yaml.safe_load_all((KUBERNETES / file).read_text(encoding="utf-8"))
    for item in document.get("items", [document])
]
PODS = [
    *(one["spec"]["template"]["spec"] for one in DOCUMENTS if one["kind"] in ("StatefulSet", "Deployment")),
    JOB["job_configuration"]["job_manifest"]["spec"]["template"]["spec"],
]
CONTAINERS = [container for pod in PODS for container in [*pod.get("initContainers", []), *pod["containers"]]]


def test_every_variable_is_known_to_what_should_read_it():
    import prefect.settings

    files = [file for room in ("flows", "plumbline", "serving") for file in (REPOSITORY / room).rglob("*.py")]
    ours = "".join(file.read_text(encoding="utf-8") for file in [*files, REPOSITORY / "docker/workspace.sh"])
    names = {name for service in SERVICES.values() for name in service.get("environment", {})}
    names |= {line.partition("=")[0] for line in KUSTOMIZATION["configMapGenerator"][0]["literals"]}
    names |= set(re.findall(r"(?<=\s)((?:PREFECT|PLUMBLINE|MLFLOW)_[A-Z_]+)=", DOCKERFILE + SERVING))
    of_postgres = {name for name in names if name.startswith("POSTGRES_")}
    unknown = [name for name in names - of_postgres if not hasattr(prefect.settings, name) and name not in ours]
    assert unknown == []


def test_versions_are_pinned_and_agree():
    dependencies = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    prefect = next(line.removeprefix("prefect==") for line in dependencies if line.startswith("prefect=="))
    images = {service["image"] for service in SERVICES.values()} | set(
        re.findall("^FROM (\\S+)", DOCKERFILE + SERVING, re.M)
    )
    images |= {container["image"] for container in CONTAINERS} - {"plumbline", "plumbline-serving", "{{ image }}"}
    assert all(re.search(r":\d+\.\d+", image) for image in images), images
    assert f"prefecthq/prefect:{prefect}-python3.11-kubernetes" in images
    ours = next(image for image in KUSTOMIZATION["images"] if image["name"] == "plumbline")
    in_job = JOB["variables"]["properties"]["image"]["default"]
    assert in_job == f"{ours['newName']}:{ours['newTag']}"
    assert SERVICES["worker"]["image"] == f"plumbline:{ours['newTag']}"
    served = next(image for image in KUSTOMIZATION["images"] if image["name"] == "plumbline-serving")
    assert SERVICES["serving"]["image"] == f"plumbline-serving:{served['newTag']}"


def test_nothing_runs_as_root():
    for dockerfile in (DOCKERFILE, SERVING):
        assert re.findall(r"^USER (\S+)", dockerfile, re.M) == ["10001"]
    for name, service in SERVICES.items():
        assert service["image"].startswith("plumbline:") or service.get("user"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in PODS)
    assert all(not container["securityContext"]["allowPrivilegeEscalation"] for container in CONTAINERS)


def test_pools_and_settings_that_prefect_insists_on():
    commands = [service.get("command", []) for service in SERVICES.values()]
    commands += [[*container.get("command", []), *container["args"]] for container in CONTAINERS[:-1]]
    named = {word for command in commands for word in command if word.startswith("plumbline")}
    assert named == {"plumbline-elsewhere"}
    assert named < set(POOLS)
    # prefect-kubernetes 0.8 refuses a job without these, and with another name.
    pod = PODS[-1]
    assert (pod["parallelism"], pod["completions"], pod["restartPolicy"]) == (1, 1, "Never")
    assert pod["containers"][0]["name"] == "prefect-job"


def test_the_image_gets_what_it_copies():
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+) \S+$", DOCKERFILE + SERVING, re.M)
    let_in = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(let_in)
    assert all((REPOSITORY / path).exists() for path in copied)


def test_the_serving_image_trains_nothing_and_its_settings_are_settings():
    from plumbline.common.params import load_section
    from serving.settings import ServingParams

    lock = (REPOSITORY / "requirements-serving.lock").read_text(encoding="utf-8")
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, re.M))
    assert not names & {"tensorflow", "tensorflow-cpu", "keras", "mlflow", "prefect", "dvc", "pandas", "numba"}
    assert {"onnxruntime", "fastapi", "mlflow-skinny", "uvloop", "httptools"} <= names
    whole = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", whole, re.M))
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.M):
        if name in pinned and lock.count(f"\n{name}==") == 1:
            assert pinned[name] == version, name
    assert load_section("serving", ServingParams, REPOSITORY / "docker/serving.yaml").keys is not None
    for content in (
        SERVICES_FILE["configs"]["serving"]["content"],
        next(one for one in DOCUMENTS if one["kind"] == "ConfigMap")["data"]["params.yaml"],
    ):
        ServingParams.model_validate(yaml.safe_load(content)["serving"])


def test_the_pods_that_serve_are_probed_limited_and_scaled():
    ours = {one["metadata"]["name"]: one for one in DOCUMENTS if one["kind"] == "Deployment"}
    stable, canary = (ours[name]["spec"]["template"] for name in ("serving", "serving-canary"))
    service = next(one for one in DOCUMENTS if one["kind"] == "Service")
    for template in (stable, canary):
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["resources"]["limits"]["memory"]
    assert stable["metadata"]["labels"] != canary["metadata"]["labels"]
    scaler = next(one for one in DOCUMENTS if one["kind"] == "HorizontalPodAutoscaler")
    metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert f'"{metric}"' in (REPOSITORY / "serving/metrics.py").read_text(encoding="utf-8")


def test_a_container_clones_once_then_runs_its_command(tmp_path):
    made = tmp_path / "made"
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "init", "--quiet", str(made)], check=True)
    (made / "file").write_text("text")
    subprocess.run(["git", "add", "file"], cwd=made, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "-m", "File"], cwd=made, check=True)
    workspace = tmp_path / "workspace"
    (tmp_path / "workspace.part").mkdir()  # as a kill in the middle of a clone leaves it
    env = {**os.environ, "PLUMBLINE_GIT": str(made), "PLUMBLINE_WORKSPACE": str(workspace)}

    def start(*command):
        script = ["sh", str(REPOSITORY / "docker/workspace.sh"), *command]
        return subprocess.run(script, env=env, capture_output=True, text=True, check=False)

    assert start("cat", "file").stdout == "text"
    (workspace / "file").write_text("changed")
    assert start("cat", "file").stdout == "changed"
    del env["PLUMBLINE_GIT"]
    env["PLUMBLINE_WORKSPACE"] = str(tmp_path / "other")
    failed = start("true")
    assert failed.returncode != 0
    assert "PLUMBLINE_GIT: the Git URL of the project" in failed.stderr
