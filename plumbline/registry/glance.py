"""Which versions the aliases name, asked every second by whoever serves them: without MLflow, which takes 150 MB.

A SQLite registry is read as the file that it is, a server through MLflow's REST interface.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from plumbline.common.errors import UserError, first_line
from plumbline.registry.versions import DIGEST_TAG, MISSING, RegistryDownError, folder_of, shown_uri, sqlite_path

ALIASED = """
    select a.version, v.storage_location, t.value from registered_model_aliases a
    join model_versions v on v.name = a.name and v.version = a.version
    left join model_version_tags t on t.name = a.name and t.version = a.version and t.key = ?
    where a.name = ? and a.alias = ?
"""
PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class Glimpse:
    """What an alias names: a version's number, its manifest's digest, and its folder where that is on this machine."""

    version: int
    digest: str
    folder: Path | None


def glance(uri: str, model: str, alias: str) -> Glimpse | None:
    """Return what `alias` of `model` names in the registry at `uri`, None where it names nothing.

    Raises RegistryDownError where the registry can't be asked, UserError where the version is none of Plumbline's.
    """
    path = sqlite_path(uri)
    found = _from_file(path, uri, model, alias) if path else _from_server(uri, model, alias)
    if found is not None and not found.digest:
        raise UserError(
            f"Version {found.version} of '{model}' in {shown_uri(uri)} was not registered by Plumbline (it has no "
            f"manifest): move the alias '{alias}' to one that was."
        )
    return found


def _from_file(path: Path, uri: str, model: str, alias: str) -> Glimpse | None:
    if not path.is_file():
        raise RegistryDownError(f"There is no registry at {path}: promote a model first (`dvc repro`), or restore it.")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=PATIENCE)) as database:
            row = database.execute(ALIASED, (DIGEST_TAG, model, alias)).fetchone()
    except sqlite3.Error as error:
        raise RegistryDownError(f"The registry {path} can't be read ({first_line(error)}): restore it.") from None
    if row is None:
        return None
    version, address, digest = row
    return Glimpse(int(version), str(digest or ""), folder_of(uri, str(address)) if address else None)


def _from_server(uri: str, model: str, alias: str) -> Glimpse | None:
    if not uri.startswith(("http://", "https://")):
        raise UserError(f"{shown_uri(uri)} is neither a SQLite file nor an MLflow server: serve from one of these.")
    import httpx

    try:
        answer = httpx.get(
            f"{uri.rstrip('/')}/api/2.0/mlflow/registered-models/alias",
            params={"name": model, "alias": alias},
            headers=_credentials(),
            timeout=PATIENCE,
        )
        content: Any = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise RegistryDownError(f"The registry {shown_uri(uri)} does not answer ({first_line(error)}).") from None
    try:
        if content.get("error_code") in MISSING:
            return None
        if answer.status_code != 200:
            raise RegistryDownError(f"The registry {shown_uri(uri)} answers with status {answer.status_code}.")
        version = content["model_version"]
        tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
        return Glimpse(int(version["version"]), str(tags.get(DIGEST_TAG, "")), None)
    except (AttributeError, KeyError, TypeError, ValueError):  # a log-in page, a proxy, another program's port
        raise RegistryDownError(
            f"What answers at {shown_uri(uri)} is no MLflow server: see MLFLOW_TRACKING_URI."
        ) from None


def _credentials() -> dict[str, str]:
    """What MLflow's own client sends, from the same variables."""
    import base64

    name, word = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if name and word:
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:{word}".encode()).decode()}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
