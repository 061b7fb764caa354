"""A thousand sites, a year of daily windows each: do the index, Evidently's workspace and a verdict stay quick?

    python -m benchmarks.many_sites PROJECT [--sites 1000] [--windows 365] [--work FOLDER]

PROJECT is a finished run (`make run`) whose first two sites were judged. The first one's window, as it lies there, is
given to every site for every day of the year, the older ones reduced as `drift.keep_windows` says, all as hard links in
a folder of its own; nothing of PROJECT is changed. Then `plumbline drift SITE` is called there as a user would, for a
site with a year behind it and nothing new since, and for one that gets the second site's pictures; beside it the
latter without any past and without other sites. Evidently's UI is opened on what the parameters let all sites keep.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import yaml

from benchmarks.served import wait_until
from monitoring.history import HOME, newest, page_of, share_of, snapshot_of
from monitoring.pages import known_sites
from monitoring.settings import WORKSPACE, DriftParams
from monitoring.site_state import SiteState
from plumbline.common.errors import run
from plumbline.common.params import load_section, read_params

TOP = Path(__file__).resolve().parents[1]
DAY = "S0000"  # the site that gets pictures


def main() -> None:
    """Make the year, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=365)
    parser.add_argument("--work", type=Path, help="a folder to work in, on the same disk; it is emptied")
    given = parser.parse_args()
    project = given.project.resolve()
    with tempfile.TemporaryDirectory(dir=project.parent) as temporary:
        work = given.work or Path(temporary)
        shutil.rmtree(work, ignore_errors=True)
        names = [f"S{number:04d}" for number in range(given.sites)]
        alone, many = work / "alone", work / "many"
        for folder, sites in ((alone, names[:1]), (many, names)):
            begin(project, folder, sites)
        began = time.perf_counter()
        drift = load_section("drift", DriftParams, path=many / "params.yaml")
        fill(project, many, names, given.windows, drift)
        draw(project, many, names, given.windows, drift)
        found: dict[str, Any] = {"made_seconds": round(time.perf_counter() - began)}
        found["first drawing of every page"] = index(many, names, None)
        found["one site judged"] = index(many, names, [DAY])
        found["verdict alone"] = judged(alone)
        found["verdict among many"] = judged(many)
        found["store_megabytes_of_a_site"] = round(_bytes(many / "drift" / names[-1]) / 1e6, 1)
        found["evidently"] = evidently(many, len(names))
    print(json.dumps(found, indent=1))


def begin(project: Path, folder: Path, sites: list[str]) -> None:
    """Make a project folder whose first site gets the pictures of PROJECT's second."""
    folder.mkdir(parents=True)
    params = read_params(project / "params.yaml")
    _, second = sorted(known_sites(project / "drift"))[:2]
    params["drift"] = {**params["drift"], "source": "incoming", "state": "drift", "sources": {}}
    params["sites"] = {name: {"timezone": "UTC", "cron": "0 5 * * *"} for name in sites}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    shutil.copytree(project / "incoming" / second, folder / "incoming" / DAY)
    (folder / "registry").symlink_to(project / "registry")
    (folder / "build").mkdir()
    shutil.copy(project / "build/manifest.parquet", folder / "build")


def fill(project: Path, folder: Path, names: list[str], windows: int, drift: DriftParams) -> None:
    """Give every site the same year, reduced as the parameters say."""
    first = sorted(known_sites(project / "drift"))[0]
    origin = SiteState(project / "drift", first)
    window = origin.windows()[-1]
    template = SiteState(folder / "template", first)
    for number in range(1, windows + 1):
        home = template.root / "windows" / f"{number:04d}"
        shutil.copytree(origin.root / "windows" / window, home)
        result = origin.result(window)
        (home / "result.json").write_text(json.dumps({**result, "window": home.name}), encoding="utf-8")
    template.retire(drift.keep_windows)
    for name in names:
        shutil.copytree(template.root, folder / "drift" / name, copy_function=os.link)


def index(folder: Path, names: list[str], judged: list[str] | None) -> dict[str, float]:
    """Seconds to write the index, with the pages of `judged`, and the index' megabytes."""
    code = (
        "import sys, json; from pathlib import Path; from monitoring.pages import write_index; "
        "write_index(Path('reports/drift'), Path('drift'), *json.loads(sys.argv[1]), "
        "manifest=Path('build/manifest.parquet'), judged=json.loads(sys.argv[2]))"
    )
    seconds, megabytes = timed([sys.executable, "-c", code, json.dumps([names]), json.dumps(judged)], folder)
    size = (folder / "reports/drift/index.html").stat().st_size / 1e6
    return {"seconds": seconds, "peak_megabytes": megabytes, "index_megabytes": round(size, 2)}


def judged(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds and megabytes of `plumbline drift`, with new pictures and again without."""
    command = [sys.executable, "-m", "monitoring.drift", DAY]
    found = {}
    for name in ("new pictures", "nothing new"):
        seconds, megabytes = timed(command, folder, (0, 1, 2))
        found[name] = {"seconds": seconds, "peak_megabytes": megabytes}
    return found


def timed(command: list[str], folder: Path, good: tuple[int, ...] = (0,)) -> tuple[float, int]:
    """Run a command in a folder; return its seconds and peak megabytes."""
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in good:
        raise subprocess.CalledProcessError(process.returncode, command)
    return round(time.perf_counter() - began, 1), round(usage.ru_maxrss / 1000)


def draw(project: Path, folder: Path, names: list[str], windows: int, drift: DriftParams) -> None:
    """Give every site as many pages and places in Evidently's workspace as the parameters let it keep."""
    first = sorted(known_sites(project / "drift"))[0]
    window = SiteState(project / "drift", first).windows()[-1]
    workspace, theirs = folder / "drift" / WORKSPACE, project / "drift" / WORKSPACE
    snapshot = json.loads(snapshot_of(theirs, first, window).read_text())
    page = page_of(project / "reports/drift", first, window)
    old = str(uuid.uuid5(HOME, first))
    kept = [f"{number:04d}" for number in range(1, windows + 1)]
    pages = sorted(newest(kept, share_of(drift.keep_pages, drift.most_pages, len(names))))
    snapshots = sorted(newest(kept, share_of(drift.keep_snapshots, drift.most_snapshots, len(names))))
    for name in names:
        new = str(uuid.uuid5(HOME, name))
        (workspace / new / "snapshots").mkdir(parents=True)
        for part in ("metadata.json", "dashboard.json"):
            text = (theirs / old / part).read_text()
            (workspace / new / part).write_text(text.replace(old, new).replace(first, name), encoding="utf-8")
        for day in snapshots:
            path = snapshot_of(workspace, name, day)
            path.write_text(json.dumps({**snapshot, "id": path.stem}), encoding="utf-8")
        for day in pages:
            path = page_of(folder / "reports/drift", name, day)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(page, path)


def evidently(folder: Path, sites: int) -> dict[str, Any]:
    """Seconds until Evidently's UI lists every site, and its megabytes."""
    import httpx
    import psutil

    workspace = folder / "drift" / WORKSPACE
    kept = len(list(workspace.glob("*/snapshots/*.json")))
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("evidently")), "ui", "--workspace", str(workspace), "--port", "8196"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:

        def listed() -> bool:
            try:
                answer = httpx.get("http://127.0.0.1:8196/api/projects", timeout=300)
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and len(answer.json()) >= sites

        wait_until(listed, 900, "Evidently's list of projects")
        opened = time.perf_counter() - began
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
        megabytes = round(_bytes(workspace) / 1e6)
        return {
            "snapshots": kept,
            "seconds_to_the_list": round(opened, 1),
            "megabytes": round(memory),
            "workspace_megabytes": megabytes,
        }
    finally:
        process.terminate()
        process.wait()


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    run(main)
