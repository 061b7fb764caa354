"""The MLflow model registry: whole versions, two aliases, one promotion at a time.

What a reader may rely on, whatever is killed when: the alias `champion` names a version whose files are all there. A
version is made only after its files were uploaded, read back and checked; the alias moves after that, in one call.
Everything a killed run leaves is therefore out of sight of readers, and the next run clears it away.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from plumbline.common.errors import UserError, first_line
from plumbline.common.files import replacing_folder, text_digest, write_json
from plumbline.registry import bundle

DEFAULT_URI = "sqlite:///registry/mlflow.db"
MODEL = "plumbline"
CHAMPION = "champion"
PREVIOUS = "previous"
DIGEST_TAG = "plumbline.manifest_sha256"
FINGERPRINT_TAG = "plumbline.fingerprint"
WEIGHTS_TAG = "plumbline.weights_sha256"
WITHDRAWN_TAG = "rolled back because"
HOLDER_TAG = "plumbline.registered_by"
MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}


class RegistryDownError(UserError):
    """The registry does not answer; what it holds is as it was."""


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
    """Return where the registry is: MLFLOW_TRACKING_URI, else SQLite under `registry/`; SQLite paths made absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    path = sqlite_path(uri)
    return f"sqlite:///{path}" if path else uri


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a SQLite registry's file, or None for a server or another database."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").split("?")[0])).absolute()


def shown_uri(uri: str) -> str:
    """Return an address fit to print: without the password it may carry."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rsplit("@", 1)[1]))


def exists(uri: str) -> bool:
    """Say whether there is anything to open: a SQLite file may not be there yet; a server is asked when opened."""
    path = sqlite_path(uri)
    return path is None or path.is_file()


def open_registry(model: str = MODEL, uri: str | None = None) -> Registry:
    """Open the registry, making a SQLite one where there is none. Raises UserError if it can't be reached."""
    uri = uri or registry_uri()
    # MLflow's own default retries for four minutes before it says that a server is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with readable_errors(uri):
        path = sqlite_path(uri)
        if path and not path.is_file():
            _create_sqlite(path)
        return Registry(uri, model, _client(uri))


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
            _client(f"sqlite:///{temporary / path.name}").search_experiments(max_results=1)
            os.replace(temporary / path.name, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def readable_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow, the network, the database or a full disk raise into one sentence with the way out."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _explained(shown_uri(uri), error) from error


def _explained(uri: str, error: Exception) -> UserError:
    chain = _causes(error)
    text = " ".join(str(cause) for cause in chain).lower()
    untouched = "The champion it had is untouched."
    if any(getattr(cause, "errno", None) in _FULL for cause in chain) or any(mark in text for mark in _FULL_TEXT):
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


_FULL = {28, 122, 27}  # ENOSPC, EDQUOT, EFBIG
_FULL_TEXT = ("no space left", "disk is full", "file too large", "quota exceeded")
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


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


@contextmanager
def locked(registry: Registry, timeout: float) -> Iterator[None]:
    """Hold the registry for one promotion of this user on this machine; the kernel frees it if we are killed.

    Between machines there is no lock that every MLflow store offers: `move_champion` checks there instead.
    Raises UserError after `timeout` seconds.
    """
    from filelock import FileLock, Timeout

    path = sqlite_path(registry.uri)
    if path:
        lock = path.with_name(f".{path.name}.lock")
    else:
        key = hashlib.sha256(registry.uri.encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir()) / f"plumbline-{os.getuid()}-{key}.lock"
    try:
        with FileLock(lock, timeout=timeout):
            yield
    except Timeout:
        raise UserError(
            f"Another promotion has held {lock} for {timeout:.0f} seconds: wait for it, or end it, and run again."
        ) from None


def holder() -> str:
    """Return who registers: two runs with the same holder exclude each other through `locked`."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


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
    folder = _local_folder(registry, address) or cache_folder() / digest
    if folder.is_relative_to(cache_folder()):
        _fill_cache(folder, address, digest)
    else:
        bundle.verify(folder, digest)
    return Version(registry.model, int(record.version), folder, dict(record.tags), tuple(record.aliases))


def _fill_cache(folder: Path, address: str, digest: str) -> None:
    from mlflow.artifacts import download_artifacts

    if (folder / bundle.MANIFEST).is_file():
        try:
            bundle.verify(folder, digest)
            return
        except UserError:
            shutil.rmtree(folder)  # a cache that went bad is fetched again
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
    return Path(os.environ.get("PLUMBLINE_CACHE") or Path.home() / ".cache" / "plumbline") / "versions"


def _local_folder(registry: Registry, address: str) -> Path | None:
    parts = urlsplit(address)
    if parts.scheme not in ("file", ""):
        return None
    folder = Path(unquote(parts.path))
    database = sqlite_path(registry.uri)
    if not folder.exists() and database and "artifacts" in folder.parts:
        # MLflow stores absolute paths; a project that was moved keeps its files beside its database.
        tail = folder.parts[folder.parts.index("artifacts") + 1 :]
        return database.parent.joinpath("artifacts", *tail)
    return folder


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
                "`python -m stages.promote history` lists what there is."
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
        location = (path.parent / "artifacts").as_uri() if path else None
        try:
            return str(registry.client.create_experiment(name, artifact_location=location))
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
        place, name=name, source_run_id=run.info.run_id, tags=tags, params=params, model_type="image classifier"
    )
    try:
        client.log_model_artifacts(logged.model_id, str(folder))
        _check_upload(registry, logged.artifact_location, digest)
    except BaseException:
        with suppress(Exception):  # half an upload only fills the disk; its record is cleared by the next run
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
    client.set_terminated(run.info.run_id, "FINISHED")
    return int(version.version)


def clear_leftovers(registry: Registry) -> int:
    """Clear away what killed runs of this user on this machine left half-registered; return how many there were.

    Must be called under `locked`: then a run of ours that is still marked as running is certainly dead. Files go before
    their record, so that a clearing that is itself killed is taken up again.
    """
    found = registry.client.get_experiment_by_name(registry.model)
    if found is None or found.lifecycle_stage == "deleted":
        return 0
    place = found.experiment_id
    mine = f"attributes.status = 'RUNNING' and tags.`{HOLDER_TAG}` = '{holder()}'"
    cleared = 0
    for run in registry.client.search_runs([place], mine):
        if registry.client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            registry.client.set_terminated(run.info.run_id, "FINISHED")
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
    """Point `previous` at the champion there is, then `champion` at version `to`: the last call, and a single one.

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


def withdraw(registry: Registry, left: int, back_to: int, reason: str) -> None:
    """Mark version `left` as rolled back, with the reason, and take that mark off `back_to`; safe to repeat."""
    registry.client.set_model_version_tag(registry.model, str(left), WITHDRAWN_TAG, reason)
    reinstate(registry, back_to)


def reinstate(registry: Registry, version: int) -> None:
    """Take the mark of a rollback off `version`, where it has one."""
    record = find(registry, version)
    if record is not None and WITHDRAWN_TAG in record.tags:
        registry.client.delete_model_version_tag(registry.model, str(version), WITHDRAWN_TAG)
