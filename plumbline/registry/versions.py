"""The MLflow model registry: whole versions, two aliases, one promotion at a time.

Readers can rely on this, even if a run is killed at any point: the alias `champion` names a version whose files are
complete. A version is created only after its files were uploaded, read back and checked; the alias moves after that,
in one call. So readers never see what a killed run leaves, and the next run removes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from plumbline.common.errors import UserError, causes, first_line, no_room
from plumbline.common.files import replacing_folder, text_digest, write_json
from plumbline.common.interrupted import project_of
from plumbline.common.locks import held
from plumbline.common.served import CHALLENGER, CHAMPION
from plumbline.common.users import name_this_user, user_name
from plumbline.registry import bundle

DATABASE = Path("registry/mlflow.db")
MODEL = "plumbline"
PREVIOUS = "previous"
DIGEST_TAG = "plumbline.manifest_sha256"
FINGERPRINT_TAG = "plumbline.fingerprint"
WEIGHTS_TAG = "plumbline.weights_sha256"
VERSION_TAG = "plumbline.version"
BESIDE_TAG = "plumbline.beside_database"
WITHDRAWN_TAG = "rolled back because"
HOLDER_TAG = "plumbline.registered_by"
MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}
ADDRESSES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's database with absolute addresses of files, besides the experiment's own."""

PATIENCE, FIRST_PATIENCE = "30", "10"
"""Seconds to wait for a server's answer, and for the first, small one; MLflow's own default is 120. A request is
repeated MLFLOW_HTTP_REQUEST_MAX_RETRIES times."""


def journal_of(model: str) -> str:
    """Return the name of the experiment that holds a model's journal; every registry there is calls it an audit."""
    return f"{model}-audit"


class RegistryDownError(UserError):
    """The registry does not answer; its content is unchanged."""


@dataclass(frozen=True)
class Registry:
    """An open registry: its address and MLflow's client."""

    uri: str
    model: str
    client: Any = field(repr=False)


@dataclass(frozen=True)
class Version:
    """One registered version; `folder` is a local copy (or the files themselves) checked against its manifest."""

    model: str
    version: int
    folder: Path
    tags: dict[str, str]
    aliases: tuple[str, ...]
    from_cache: bool = False  # the registry was down: the last version known under this alias

    @property
    def onnx(self) -> Path:
        """The ONNX file: float32 pixels 0..255 (N, S, S, 3) to `probabilities` (N, C) and `embedding` (N, D)."""
        return self.folder / bundle.ONNX

    def read(self, name: str) -> Any:
        """Return one of the version's JSON files, such as `serving.json`, as plain data."""
        return bundle.read_json(self.folder, name)


def registry_uri() -> str:
    """Return where the registry is: MLFLOW_TRACKING_URI, else SQLite under `registry/`; SQLite paths made absolute.

    `registry/` lies at the top of the DVC project, so that all its pipelines share it; without DVC in this folder.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = given or sqlite_uri((project_of() or Path.cwd()) / DATABASE)
    path = sqlite_path(uri)
    return sqlite_uri(path) if path else uri


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a SQLite registry's file, or None for a server or another database.

    As MLflow reads it: the path as it is written, up to a `?`; percent signs mean something in `sqlite:///file:` only.
    """
    if not uri.startswith("sqlite:///"):
        return None
    written = uri.removeprefix("sqlite:///").split("?")[0]
    return Path(unquote(written.removeprefix("file:")) if written.startswith("file:") else written).absolute()


def sqlite_uri(path: Path) -> str:
    """Return the address of a SQLite file as MLflow reads it, with any characters in its path."""
    return f"sqlite:///file:{quote(str(path))}?uri=true" if "?" in str(path) else f"sqlite:///{path}"


def shown_uri(uri: str) -> str:
    """Return an address for printing, without the password it may contain."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rsplit("@", 1)[1]))


def exists(uri: str) -> bool:
    """Return whether there is a registry: a SQLite file must exist; a server is assumed, and asked when opened."""
    path = sqlite_path(uri)
    return path is None or path.is_file()


def open_registry(model: str = MODEL, uri: str | None = None) -> Registry:
    """Open the registry, making a SQLite one where there is none. Raises UserError if it can't be reached."""
    uri = uri or registry_uri()
    # By default MLflow retries for four minutes before it reports that a server is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with readable_errors(uri):
        path = sqlite_path(uri)
        if path and not path.is_file():
            _create_sqlite(path)
        opened = Registry(uri, model, _client(uri))
        if path:
            _move_along_if_free(opened)
        else:
            _check_answer(opened)
        return opened


def _check_answer(registry: Registry) -> None:
    """Send a server one small request with a short timeout: a hanging one is found now, not minutes later."""
    patience = os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", PATIENCE)
    # A user's own setting applies here too.
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = FIRST_PATIENCE if patience == PATIENCE else patience
    try:
        registry.client.search_experiments(max_results=1)
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = patience


def _client(uri: str) -> Any:
    import mlflow

    # MLflow's SQL registry resolves `models:/` sources through the global address, not the client's. Setting it also
    # sets the environment variable that `registry_uri` reads, which is the user's to set.
    wanted = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if wanted:
        os.environ["MLFLOW_TRACKING_URI"] = wanted
    for talkative in ("mlflow", "alembic"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    return mlflow.MlflowClient(uri)


def _create_sqlite(path: Path) -> None:
    """Make the database under another name and move it into place in one step.

    MLflow's migrations do not run in one transaction: a kill between two of them would leave a file that MLflow can
    neither use nor repair (mlflow/mlflow issue 23721).
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.new.lock")):
        for leftover in path.parent.glob(f".{path.name}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if path.is_file():
            return
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
        try:
            _client(sqlite_uri(temporary / path.name)).search_experiments(max_results=1)
            os.replace(temporary / path.name, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def readable_errors(uri: str) -> Iterator[None]:
    """Turn errors of MLflow, the network, the database or a full disk into one sentence with the way out."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _explained(shown_uri(uri), error) from error


def _explained(uri: str, error: Exception) -> UserError:
    text = " ".join(str(cause) for cause in causes(error)).lower()
    untouched = "The champion it had is untouched."
    if no_room(error):
        places = f"the registry {uri} or of {tempfile.gettempdir()}"
        return UserError(f"No room left on the disk of {places}: free some and run again. {untouched}")
    if any(mark in text for mark in _DOWN_TEXT):
        way_out = "start it, or correct MLFLOW_TRACKING_URI, and run again"
        return RegistryDownError(f"The registry {uri} does not answer: {way_out}. {untouched}")
    if "database is locked" in text:
        return UserError(f"The registry {uri} is busy with another writer: run again in a minute. {untouched}")
    if isinstance(error, OSError) and error.filename:
        return UserError(f"{error.filename}: {error.strerror}: put that right and run again. {untouched}")
    return UserError(f"The registry {uri} refused: {first_line(error)}. {untouched}")


_DOWN_TEXT = (
    "max retries exceeded",
    "connection refused",
    "failed to establish",
    "connection aborted",
    "name or service not known",
    "timed out",
    "502 bad gateway",
    "503 service",
    "api request to",
)


@contextmanager
def locked(registry: Registry, timeout: float) -> Iterator[None]:
    """Hold the registry for one promotion of this user on this machine; the kernel frees it if we are killed.

    Between machines there is no lock that every MLflow store offers: `move_champion` checks there instead.
    Raises UserError after `timeout` seconds.
    """
    with held(_lock_file(registry), timeout, f"The registry {shown_uri(registry.uri)} is being changed"):
        _move_along(registry)
        yield


def _lock_file(registry: Registry) -> Path:
    path = sqlite_path(registry.uri)
    if path:
        return path.with_name(f".{path.name}.lock")
    key = hashlib.sha256(registry.uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"plumbline-{os.getuid()}-{key}.lock"


def _move_along_if_free(registry: Registry) -> None:
    """As `_move_along`, for readers: not while a promotion runs, and not where nothing may be written."""
    from filelock import FileLock, Timeout

    with suppress(Timeout, OSError, sqlite3.Error), FileLock(_lock_file(registry), timeout=0):
        _move_along(registry)


def _move_along(registry: Registry) -> None:
    """Where a SQLite registry lies elsewhere than when it was made, correct the absolute paths that MLflow keeps.

    A project that was moved would write under its old path, a copy into its original. Only experiments that keep their
    files beside the database are touched; those that somebody placed elsewhere stay there.
    """
    path = sqlite_path(registry.uri)
    if path is None:
        return
    here = _artifacts_beside(path)
    # MLflow has no call that changes an experiment's location.
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        moved = _moved_experiments(database, registry, here)
        for experiment, root in moved:
            for table, column in ADDRESSES:
                database.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
                    (here.as_uri(), len(root) + 1, len(root) + 1, f"{root}/"),
                )
            database.execute(
                "update experiments set artifact_location = ? where experiment_id = ?", (here.as_uri(), experiment)
            )


def _artifacts_beside(database: Path) -> Path:
    return database.parent / "artifacts"


def _moved_experiments(database: sqlite3.Connection, registry: Registry, here: Path) -> list[tuple[int, str]]:
    """Return (experiment, its old location) of those that were made beside the database and are not there any more."""
    rows = database.execute(
        "select e.experiment_id, e.name, e.artifact_location, t.value from experiments e left join experiment_tags t"
        " on t.experiment_id = e.experiment_id and t.key = ?",
        (BESIDE_TAG,),
    ).fetchall()
    ours = (registry.model, journal_of(registry.model))
    moved = []
    for experiment, name, location, tag in rows:
        root = _path_of(location or "")
        if root is None or root.resolve() == here.resolve():
            continue
        made_before_the_tag = name in ours and root.name == here.name and here.is_dir()
        if tag is not None or made_before_the_tag:
            moved.append((int(experiment), str(location)))
    return moved


def _path_of(address: str) -> Path | None:
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def holder() -> str:
    """Return the user and machine that register: runs with the same value exclude each other through `locked`."""
    return f"{user_name()}@{socket.gethostname()}"


def find(registry: Registry, alias_or_version: str | int) -> Any | None:
    """Return MLflow's record of a version by alias or number, or None where there is none."""
    from mlflow.exceptions import MlflowException

    wanted = str(alias_or_version)
    try:
        if wanted.isdigit():
            return registry.client.get_model_version(registry.model, wanted)
        return registry.client.get_model_version_by_alias(registry.model, wanted)
    except MlflowException as error:
        if error.error_code in MISSING:
            return None
        raise


def number(record: Any | None) -> int | None:
    """Return the version number of MLflow's record, None for none."""
    return int(record.version) if record is not None else None


def find_by_tag(registry: Registry, key: str, value: str) -> list[Any]:
    """Return the versions whose tag `key` is `value`, newest first."""
    found = registry.client.search_model_versions(f"name = '{registry.model}' and tags.`{key}` = '{value}'")
    return sorted(found, key=lambda record: -int(record.version))


def fetch(registry: Registry, record: Any) -> Version:
    """Return a version with its files checked: local ones where they lie, remote ones downloaded.

    Raises UserError if a file is missing or altered.
    """
    digest = record.tags.get(DIGEST_TAG)
    if not digest:
        raise UserError(
            f"Version {record.version} of '{registry.model}' in {shown_uri(registry.uri)} was not registered by "
            "Plumbline (it has no manifest): roll back to one that was."
        )
    address = registry.client.get_model_version_download_uri(registry.model, record.version)
    folder = _checked_folder(registry, address, digest)
    return Version(registry.model, int(record.version), folder, dict(record.tags), tuple(record.aliases))


def fetch_deleted(registry: Registry, version: int) -> Version | None:
    """Return a version that was deleted in MLflow, as long as its files are still there; None where they are not."""
    place = registry.client.get_experiment_by_name(registry.model)
    if place is None:
        return None
    wanted = f"tags.`{VERSION_TAG}` = '{version}'"
    for logged in registry.client.search_logged_models([place.experiment_id], wanted):
        digest = logged.tags.get(DIGEST_TAG)
        with suppress(UserError):
            if digest:
                folder = _checked_folder(registry, logged.artifact_location, digest)
                return Version(registry.model, version, folder, dict(logged.tags), ())
    return None


def _checked_folder(registry: Registry, address: str, digest: str) -> Path:
    folder = _local_folder(registry, address)
    if folder is None:
        folder = cache_folder() / digest
        _fill_cache(folder, address, digest)
    else:
        bundle.verify(folder, digest)
    return folder


def _fill_cache(folder: Path, address: str, digest: str) -> None:
    from mlflow.artifacts import download_artifacts

    if (folder / bundle.MANIFEST).is_file():
        try:
            bundle.verify(folder, digest)
            return
        except UserError:
            shutil.rmtree(folder)  # a damaged cache is fetched again
    with replacing_folder(folder) as temporary:
        # MLflow puts the files in `temporary` or, from a server, in a folder within.
        downloaded = Path(download_artifacts(address, dst_path=str(temporary)))
        if downloaded.resolve() != temporary.resolve():
            for path in list(downloaded.iterdir()):
                path.rename(temporary / path.name)
            downloaded.rmdir()
        bundle.verify(temporary, digest)


def cache_folder() -> Path:
    """Return where versions of a remote registry are kept on this machine: PLUMBLINE_CACHE, else ~/.cache/plumbline."""
    name_this_user()
    return Path(os.environ.get("PLUMBLINE_CACHE") or Path.home() / ".cache" / "plumbline") / "versions"


def _local_folder(registry: Registry, address: str) -> Path | None:
    return folder_of(registry.uri, address)


def folder_of(uri: str, address: str) -> Path | None:
    """Return the folder behind an address of the registry at `uri`, None for one on a server or in a bucket.

    Beside a SQLite database if it is there: its copy has files of its own, and the address may be the original's.
    """
    if urlsplit(address).scheme not in ("file", ""):
        return None
    folder = _path_of(address) or Path(address)
    database = sqlite_path(uri)
    if database is None:
        return folder
    model_folder = folder.parts[-3:]  # models/ID/artifacts
    beside = _artifacts_beside(database).joinpath(*model_folder)
    return beside if beside.exists() or not folder.exists() else folder


def load_version(
    alias_or_version: str | int = CHAMPION, model: str = MODEL, uri: str | None = None, cached_if_down: bool = False
) -> Version:
    """Return a registered version (by alias or number) with its files verified.

    `cached_if_down` gives the version that this machine last got under that name when a remote registry does not
    answer (`from_cache` says so): a service can start without it. Raises UserError if there is no such version, the
    registry can't be reached or the files were altered.
    """
    uri = uri or registry_uri()
    if not exists(uri):
        raise UserError(f"There is no registry at {shown_uri(uri)} yet: promote a model first (`dvc repro`).")
    note = cache_folder() / "known" / f"{text_digest(f'{shown_uri(uri)} {model} {alias_or_version}')}.json"
    try:
        version = _load(open_registry(model, uri), alias_or_version)
    except RegistryDownError:
        if not cached_if_down or not note.is_file():
            raise
        return _from_cache(note)
    if sqlite_path(uri) is None:
        write_json(note, {key: value for key, value in asdict(version).items() if key not in ("folder", "from_cache")})
    return version


def _load(registry: Registry, wanted: str | int) -> Version:
    with readable_errors(registry.uri):
        record = find(registry, wanted)
        if record is None:
            raise UserError(
                f"The registry {shown_uri(registry.uri)} has no version '{wanted}' of model '{registry.model}': "
                "`plumbline history` lists what there is."
            )
        return fetch(registry, record)


def _from_cache(note: Path) -> Version:
    known = json.loads(note.read_text(encoding="utf-8"))
    digest = known["tags"][DIGEST_TAG]
    bundle.verify(cache_folder() / digest, digest)
    return Version(**{**known, "aliases": tuple(known["aliases"])}, folder=cache_folder() / digest, from_cache=True)


def experiment(registry: Registry, name: str) -> str:
    """Return the id of the experiment `name`, made where missing; a SQLite registry keeps its files beside it."""
    from mlflow.exceptions import MlflowException

    for _ in range(2):
        found = registry.client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise UserError(
                f"The experiment '{name}' was deleted in MLflow: `mlflow experiments restore -x {found.experiment_id}`."
            )
        if found is not None:
            return str(found.experiment_id)
        path = sqlite_path(registry.uri)
        location = _artifacts_beside(path).as_uri() if path else None
        tags = {BESIDE_TAG: "true"} if path else {}
        try:
            return str(registry.client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise UserError(f"The experiment '{name}' can't be made in {shown_uri(registry.uri)}.")


def register(
    registry: Registry,
    folder: Path,
    digest: str,
    name: str,
    tags: dict[str, str],
    metrics: dict[str, float],
    params: dict[str, str],
    description: str,
    kind: str = "image classifier",
) -> int:
    """Upload a sealed folder, read it back, check it, and only then make it a version; return its number.

    The version appears in one call, with all its tags. Must be called under `locked`.
    """
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    client = registry.client
    now = time.time_ns() // 1_000_000
    place = experiment(registry, registry.model)
    run = client.create_run(place, run_name=name, tags={HOLDER_TAG: holder(), **tags})
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
        params=[Param(key, value) for key, value in params.items()],
    )
    logged = client.create_logged_model(
        place,
        name=name,
        source_run_id=run.info.run_id,
        tags={**tags, DIGEST_TAG: digest},
        params=params,
        model_type=kind,
    )
    try:
        client.log_model_artifacts(logged.model_id, str(folder))
        _check_upload(registry, logged.artifact_location, digest)
    except BaseException:
        with suppress(Exception):  # a partial upload only takes disk space; the next run removes its record
            _delete_files(registry, logged.artifact_location)
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    try:
        client.create_registered_model(registry.model, description="Plumbline's champion and all versions before it.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        registry.model,
        f"models:/{logged.model_id}",
        run.info.run_id,
        tags={**tags, DIGEST_TAG: digest},
        description=description,
        model_id=logged.model_id,
    )
    _finish_run(registry, run, version)
    return int(version.version)


def _finish_run(registry: Registry, run: Any, version: Any) -> None:
    """Note the version's number beside its files, where it outlives the version, and end the run; safe to repeat."""
    logged = str(version.source).removeprefix("models:/")
    registry.client.set_logged_model_tags(logged, {VERSION_TAG: str(version.version)})
    registry.client.set_terminated(run.info.run_id, "FINISHED")


def clear_leftovers(registry: Registry) -> int:
    """Clear away what killed runs of this user on this machine left half-registered; return how many there were.

    Must be called under `locked`: then a run of ours that is still marked as running is certainly dead. Files are
    removed before their record, so that a removal that is killed itself is continued.
    """
    found = registry.client.get_experiment_by_name(registry.model)
    if found is None or found.lifecycle_stage == "deleted":
        return 0
    place = found.experiment_id
    mine = f"attributes.status = 'RUNNING' and tags.`{HOLDER_TAG}` = '{holder()}'"
    cleared = 0
    for run in registry.client.search_runs([place], mine):
        registered = registry.client.search_model_versions(f"run_id = '{run.info.run_id}'")
        if registered:
            _finish_run(registry, run, registered[0])
            continue
        for logged in registry.client.search_logged_models([place], f"source_run_id = '{run.info.run_id}'"):
            _delete_files(registry, logged.artifact_location)
            registry.client.delete_logged_model(logged.model_id)
        registry.client.set_terminated(run.info.run_id, "FAILED")
        cleared += 1
    return cleared


def _delete_files(registry: Registry, address: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder = _local_folder(registry, address)
    if folder is None:
        get_artifact_repository(address).delete_artifacts()  # type: ignore[no-untyped-call]
        return
    if folder.exists():
        shutil.rmtree(folder)
    with suppress(OSError):  # MLflow gives each model a folder around its files
        folder.parent.rmdir()


def _check_upload(registry: Registry, address: str, digest: str) -> None:
    from mlflow.artifacts import download_artifacts

    folder = _local_folder(registry, address)
    if folder is not None:
        bundle.verify(folder, digest)
        return
    with tempfile.TemporaryDirectory(prefix="plumbline-check-") as temporary:
        bundle.verify(Path(download_artifacts(address, dst_path=temporary)), digest)


def move_champion(registry: Registry, to: int, expected: int | None) -> None:
    """Point `previous` at the present champion, then `champion` at version `to`, in one last call.

    `expected` is the champion that the decision was taken against: if another machine has moved it since, nothing is
    touched and UserError says so.
    """
    now = number(find(registry, CHAMPION))
    if now != expected:
        raise UserError(
            f"Version {now} became champion while this run was under way (it was {expected}): "
            "nothing was moved; run again to be compared with the new one."
        )
    if now is not None and now != to:
        registry.client.set_registered_model_alias(registry.model, PREVIOUS, str(now))
    registry.client.set_registered_model_alias(registry.model, CHAMPION, str(to))


def challenge(registry: Registry, version: int) -> None:
    """Point `challenger` at a version: serving scores pictures with it beside the champion, where it is asked to."""
    registry.client.set_registered_model_alias(registry.model, CHALLENGER, str(version))


def end_trial(registry: Registry, version: int) -> None:
    """Take the alias `challenger` off a version, where it has it; safe to repeat."""
    if number(find(registry, CHALLENGER)) == version:
        registry.client.delete_registered_model_alias(registry.model, CHALLENGER)


def withdraw(registry: Registry, left: int, back_to: int, reason: str) -> None:
    """Mark version `left` as rolled back, with the reason, and take that mark off `back_to`; safe to repeat."""
    if find(registry, left) is not None:  # it may have been deleted in MLflow
        registry.client.set_model_version_tag(registry.model, str(left), WITHDRAWN_TAG, reason)
    reinstate(registry, back_to)


def reinstate(registry: Registry, version: int) -> None:
    """Take the mark of a rollback off `version`, where it has one."""
    record = find(registry, version)
    if record is not None and WITHDRAWN_TAG in record.tags:
        registry.client.delete_model_version_tag(registry.model, str(version), WITHDRAWN_TAG)
