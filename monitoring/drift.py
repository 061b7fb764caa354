"""Judge sites' new images: can the champion still be trusted there?

    python -m monitoring.drift SITE ...          exit code 0 OK or WATCH, 1 DRIFT, 2 NOT ENOUGH IMAGES, 3 error
    python -m monitoring.drift SITE --result FILE    write the verdicts as JSON as well, for other processes
    python -m monitoring.drift SITE --pages later    draw no pages: --pages only draws them, or the next run
    python -m monitoring.drift --every-site --record build/drift.json    the stage of dvc.yaml; DRIFT is its result
    python -m monitoring.accept SITE WINDOW      a window is fine: see there

New images are collected, measured and scored by the registry's champion (`monitoring.collect`,
`monitoring.site_state`), compared with the images that travel with its version (`monitoring.judge`), and the
pages are drawn (`monitoring.pages`, `monitoring.history`). Neither Prefect nor TensorFlow is needed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from monitoring.accuracy import calibrated
from monitoring.collect import (
    METADATA,
    File,
    Known,
    Measured,
    NotFetched,
    NothingSentError,
    Source,
    Unreadable,
    known_of,
    measure_all,
    unstamped,
    with_metadata,
)
from monitoring.copies import groups_of, status_of
from monitoring.history import keep_history
from monitoring.judge import POOLS, Judgement, judge
from monitoring.labelled import held_against, labelled_site, labels_by_id
from monitoring.labelling import choose, drawn_evenly, write_to_label
from monitoring.looks import Looks, drawn
from monitoring.observations import Observations
from monitoring.pages import known_sites, picture_of, write_index
from monitoring.reference import Reference, are_jpegs, eyes_called, load_reference, measures_of, with_accepted
from monitoring.result import Furthest, Result
from monitoring.retrained import before_and_after, judged_by_others
from monitoring.served import served_record, take_served
from monitoring.settings import DriftParams, checked_site, site_names
from monitoring.site_state import (
    AGAIN,
    COPY,
    NEW,
    QUARANTINE,
    REPEAT,
    SEEN,
    EarlierLooks,
    MeasuredImages,
    SiteState,
    joined,
    unseen,
)
from monitoring.trend import MOST, over_time, points_of
from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_json
from plumbline.common.params import load_section
from plumbline.common.progress import progress
from plumbline.common.served import CHAMPION
from plumbline.imaging.manifest import IngestParams
from plumbline.imaging.settings import DataParams
from plumbline.leakage.groups import GroupParams
from plumbline.models.export import Embedder, OnnxModel
from plumbline.registry import bundle, history
from plumbline.registry import versions as registry
from plumbline.registry.eyes import OWN, open_eyes
from plumbline.registry.place import experiment
from plumbline.registry.promotion import PromoteParams
from plumbline.registry.versions import DIGEST_TAG, Version

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 512  # images measured before they are kept: what a killed run does again
BATCH = 32
OK, WATCH, DRIFT, FEW = "OK", "WATCH", "DRIFT", "NOT ENOUGH IMAGES"
EXIT = {OK: 0, WATCH: 0, DRIFT: 1, FEW: 2}
ERROR = 3
PAGES = ("now", "later", "only")


@dataclass(frozen=True)
class Champion:
    """The registry's champion: its version, what travels with it, and the images of its data version."""

    version: Version
    reference: Reference
    model: OnnxModel
    training: pd.DataFrame
    eyes: Embedder | None = None

    def seen(self, images: list[Measured], embeddings: NDArray[Any]) -> NDArray[np.float16] | None:
        """Return what drift's eyes see of pictures (N, E), whose `embeddings` the champion gave; None without eyes."""
        if self.reference.through_eyes is None:
            return None
        if self.eyes is None:  # the champion's network is the same
            return embeddings.astype(np.float16)
        pictures = [one.for_eyes for one in images if one.for_eyes is not None]
        return self.eyes.embed(pictures, BATCH).astype(np.float16)

    @property
    def digest(self) -> str:
        """The digest that identifies this version in any registry."""
        return self.version.tags[DIGEST_TAG]


@dataclass(frozen=True)
class Together:
    """What is compared: the looks of windows, newest first, and of accepted windows by name, without empty ones."""

    windows: list[Looks]
    accepted: dict[str, Looks]


@dataclass(frozen=True)
class Settings:
    """The sections of params.yaml that monitoring reads."""

    drift: DriftParams
    data: DataParams
    group: GroupParams
    ingest: IngestParams
    sites: tuple[str, ...] = ()


def load_champion(model: str) -> Champion:
    """Open the champion; UserError where there is none."""
    import pandas as pd

    version = registry.load_version(model=model, cached_if_down=True)
    training = pd.read_parquet(version.folder / bundle.HOME / "splits.parquet")
    eyes = open_eyes(version.folder / bundle.HOME / "reference")
    return Champion(version, load_reference(version), OnnxModel(version.onnx), training, eyes)


def judge_site(site: str, champion: Champion, settings: Settings) -> Result:
    """Collect the new images of `site` and judge them if there are enough; return the window's result, or why not."""
    state, source = SiteState(settings.drift.state, site), Source(settings.drift.source_of(site))
    with state.locked(settings.drift.lock_timeout):
        seen, record = state.seen(champion.digest), served_record(site)
        if record is not None:
            take_served(state, record, seen, champion.training, champion.digest, settings.drift.copy_distance)
        files = files_of(source, record is not None)
        measured, missed = collect(state, source, files, seen, champion, settings)
        names = {file.path for file in files} | set(measured.table["path"]) | set(seen["path"])
        known = known_of(source, names, site, [name for name in settings.sites if name != site])
        table = with_metadata(measured.table, known)
        fresh = (table["status"] == NEW).to_numpy(bool)
        images = table[fresh].reset_index(drop=True)
        new = measured.take(fresh)
        window = Observations(
            measures_of(images),
            scores(new.arrays["probabilities"], champion.reference),
            new.arrays["embeddings"],
            groups_of(images, new.arrays["small"], settings.group, f"{source.url}/{METADATA}"),
        )
        accepted, unused = accepted_of(state, champion.reference, settings.drift)
        together = looks_of(state, champion, images, new, settings, f"{source.url}/{METADATA}", accepted)
        reference, looks = champion.reference, None
        if together is not None:
            reference, looks = joined_by(state, champion.reference, together), together.windows
        elif accepted and len(new):
            unused.append("Accepted windows are no part of what these pictures are compared with.")
        judgement = judge(reference, window, list(images["format"]), settings.drift, looks)
        quarantine = state.quarantine()
        # Named after a window that is not there: a run was killed between noting them and keeping the window.
        bad = quarantine[~quarantine["window"].isin(state.windows())]
        through = reference.through_eyes if looks else None
        against = (through or reference.through_champion).looks
        result = result_of(state, champion, judgement, window, table, bad, missed, known, against, settings)
        blind_to = [] if judgement.verdict == FEW else blind(champion.reference, looks)
        result["notes"] = [*result["notes"], *blind_to, *unused, *unstamped(source, files)]
        joined_in = together.accepted if together else {}
        result["accepted"] = {"windows": list(joined_in), "images": sum(map(len, joined_in.values()))}
        if joined_in:
            result["basis"] += f", {result['accepted']['images']} of them accepted at this site"
        result["retrained"] = before_and_after(judged_by_others(state, champion.digest), champion.reference)
        if judgement.verdict == FEW:
            state.wait(result)
            return result
        watch_over_time(state, result, settings.drift)
        watch_labels(state, result, champion, settings.drift)
        images = scored(images, window, judgement, champion.reference)
        result["to_label"], result["drawn"] = None, []
        if result["verdict"] != OK and settings.drift.label_first + settings.drift.label_random:
            put_to_label(source, result, images, new, window, champion, settings)
        result["furthest"] = furthest(source, images, judgement, champion.reference, settings)
        rest = table[~fresh].reset_index(drop=True)
        quarantine.loc[bad.index, "window"] = str(result["window"])
        state.keep_quarantine(quarantine)
        kept = looks_kept(new, window.groups, settings.drift) if looks else None
        state.close_window(str(result["window"]), _joined(images, rest), result, kept)
        state.forget_looks(max(POOLS) - 1)
        state.wait_no_longer()
        state.retire(settings.drift.keep_windows)
    return result


def watch_over_time(state: SiteState, result: Result, params: DriftParams) -> None:
    """Add to the result of a window what the site's windows show together; a finding is WATCH, never more."""
    earlier = [state.result(name) for name in state.windows()[-MOST:]]
    points = points_of([*earlier, result], state.accepted())
    found = over_time(points, result["level"], params.permutations, params.seed)
    result["over_time"] = found
    to_watch(result, found["found"])


def watch_labels(state: SiteState, result: Result, champion: Champion, params: DriftParams) -> None:
    """Add to the result of a window what labels say of earlier ones; a settled verdict on risk is WATCH, never more."""
    reference = champion.reference
    if not reference.task.exclusive:
        return
    groups = reference.observations.groups
    result["held_against"] = held_against(reference.right, groups, params.alpha, params.risk_tolerance)
    found = labelled_site(state, champion.digest, labels_by_id(artefacts.MANIFEST.path))
    result["labelled"] = found
    if found and found["risk"]["verdict"] == "worse":
        to_watch(result, [found["said"][1]])


def to_watch(result: Result, findings: list[str]) -> None:
    """Add findings to a result's reasons: what was OK is WATCH by them, nothing is more than it was."""
    if findings:
        calm = result["verdict"] == OK
        result["verdict"] = WATCH if calm else result["verdict"]
        result["reasons"] = [*([] if calm else result["reasons"]), *findings]


def accepted_of(
    state: SiteState, reference: Reference, params: DriftParams
) -> tuple[dict[str, EarlierLooks], list[str]]:
    """Return accepted windows, the newest first, that can join the reference, and notes on those that can't."""
    statements = state.accepted()
    eyes = eyes_called(reference.eyes) if reference.eyes and reference.through_eyes else ""
    other = [name for name, one in statements.items() if one.eyes != eyes]
    found: dict[str, EarlierLooks] = {}
    for name in sorted(set(statements) - set(other), key=int, reverse=True):
        looks = state.accepted_looks(name)
        if len(looks) + sum(map(len, found.values())) > params.most_images:
            break
        found[name] = looks
    notes = []
    if other:
        notes.append(
            f"Accepted and no part of the reference, since other eyes than this version's saw their pictures: windows "
            f"{', '.join(other)}."
        )
    if left := len(statements) - len(other) - len(found):
        notes.append(
            f"Of accepted windows the oldest {left} are left out: drift.most_images is {params.most_images:,}."
        )
    return found, notes


def joined_by(state: SiteState, reference: Reference, together: Together) -> Reference:
    """Return the reference with what accepted windows look like."""
    statements = state.accepted()
    different = [statements[name].verdict == DRIFT for name in together.accepted]
    return with_accepted(reference, list(together.accepted.values()), different)


def looks_of(
    state: SiteState,
    champion: Champion,
    images: pd.DataFrame,
    new: MeasuredImages,
    settings: Settings,
    where: str,
    accepted: dict[str, EarlierLooks],
) -> Together | None:
    """Return what the new images look like, before it earlier windows', and `accepted`; None where no eyes looked.

    Images of one photograph or video may come in several windows: those of the newest count, of accepted windows only
    those that no other has.
    """
    if SEEN not in new.arrays or not len(new):
        return None
    earlier = list(islice(state.looks_before(champion.digest), max(POOLS) - 1))
    parts = [EarlierLooks(images, new.arrays[SEEN], new.arrays["small"]), *earlier, *accepted.values()]
    found = each_group_once(parts, settings.group, where)
    windows, known = found[: len(earlier) + 1], found[len(earlier) + 1 :]
    return Together(
        [one for one in windows if len(one)],
        {name: one for name, one in zip(accepted, known, strict=True) if len(one)},
    )


def each_group_once(parts: list[EarlierLooks], params: GroupParams, where: str) -> list[Looks]:
    """Return what each part looks like, without images that belong together with those of a part before it."""
    import pandas as pd

    every = pd.concat([one.table for one in parts], ignore_index=True)
    groups = groups_of(every, np.concatenate([one.small for one in parts]), params, where)
    found, start, taken = [], 0, np.array([], np.int64)
    for one in parts:
        mine = groups[start : start + len(one)]
        start += len(one)
        rows = np.flatnonzero(~np.isin(mine, taken))
        taken = np.union1d(taken, mine)
        own = np.unique(mine[rows], return_inverse=True)[1].astype(np.int64)
        measures = measures_of(one.table.iloc[rows])
        if "format" in one.table and not are_jpegs(list(one.table["format"])):
            measures = measures.drop(columns="bits_per_pixel", errors="ignore")
        found.append(Looks(measures, one.seen[rows], one.small[rows], own))
    return found


def looks_kept(new: MeasuredImages, groups: NDArray[np.int64], params: DriftParams) -> dict[str, NDArray[Any]]:
    """Return what later windows are judged together with: whole groups up to params.most_images."""
    rows = drawn(groups, params.most_images, params.seed)
    return {"rows": rows, SEEN: new.arrays[SEEN][rows], "small": new.arrays["small"][rows]}


def blind(reference: Reference, looks: list[Looks] | None) -> list[str]:
    """Return a note where drift does not look through eyes of its own, and what it may therefore miss."""
    if looks is not None:
        return []
    missed = "may not see that a part of the pictures is of another camera, nor dirt on a lens"
    through = f"Looked through the champion's own network, against images that it did not train on: this {missed}."
    if reference.through_eyes is not None:
        return [f"Pictures that were served and not kept can't be looked at by {reference.eyes_network}. {through}"]
    if reference.eyes is None:
        return [f"The champion's version brings no network for drift, as new ones do. {through}"]
    if reference.eyes.network == OWN:
        return [through]
    return [f"No pretrained weights of {reference.eyes.network} were at hand at its promotion. {through}"]


def files_of(source: Source, may_be_none: bool) -> list[File]:
    """Return a site's files; without a folder none where that is allowed, as for pictures served and not kept."""
    try:
        return source.list()
    except NothingSentError:
        if not may_be_none:
            raise
        return []


def _joined(images: pd.DataFrame, rest: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([images, rest], ignore_index=True) if len(rest) else images


# ------------------------------------------------------------------------------------------------------- collecting


def collect(
    state: SiteState, source: Source, files: list[File], seen: pd.DataFrame, champion: Champion, settings: Settings
) -> tuple[MeasuredImages, list[NotFetched]]:
    """Measure and score the `files` that were not `seen`, keep them on disk, and return all that wait for a window.

    And those that the source did not give: they stay unseen, so that the next run tries them again.
    """
    waiting = state.pending()
    if waiting is not None and (waiting.table["scored_by"] != champion.digest).any():
        state.forget_pending()  # scored by a former champion
        waiting = None
    quarantine = state.quarantine()
    known = [seen, quarantine] + ([waiting.table] if waiting is not None else [])
    fresh = unseen(files, *known)
    there = {file.path for file in files} - {file.path for file in fresh}
    bad = quarantine[quarantine["path"].isin(there)]
    delivered = set(seen["id"]) | (set(waiting.table["id"]) if waiting is not None else set())
    parts = [waiting] if waiting is not None else []
    missed: list[NotFetched] = []
    model = champion.model
    eyes = champion.eyes.image_size if champion.eyes else None
    results = measure_all(source, fresh, model.image_size, settings.data, settings.ingest.min_side, model.fit, eyes)
    results = progress(results, f"{state.site}: new images", total=len(fresh))
    while chunk := list(islice(results, CHUNK)):
        bad = _with_refused(bad, [one for one in chunk if isinstance(one, Unreadable)])
        state.keep_quarantine(bad)
        missed += [one for one in chunk if isinstance(one, NotFetched)]
        measured = [one for one in chunk if isinstance(one, Measured)]
        if measured:
            earlier = _rows([seen, *(one.table for one in parts)])
            parts.append(_scored_chunk(measured, earlier, delivered, champion, settings))
            state.add_pending(parts[-1])
    if not fresh:
        state.keep_quarantine(bad)
    return _whole(parts, champion), missed


def _scored_chunk(
    measured: list[Measured], earlier: pd.DataFrame, delivered: set[str], champion: Champion, settings: Settings
) -> MeasuredImages:
    import pandas as pd

    table = pd.DataFrame([one.row for one in measured]).astype({"phash": "uint64"})
    status = status_of(table, champion.training, earlier, delivered, settings.drift.copy_distance)
    probabilities, embeddings = champion.model.score((one.rgb for one in measured), BATCH)
    # Identifies an image in `pending` and in windows, also when another champion judges it again.
    key = table["path"] + "|" + table["id"] + "|" + champion.digest
    table = table.assign(key=key, status=status, scored_by=champion.digest)
    arrays: dict[str, NDArray[Any]] = {"embeddings": embeddings, "probabilities": probabilities}
    arrays["small"] = np.stack([one.small for one in measured])
    seen = champion.seen(measured, embeddings)
    return MeasuredImages(table, arrays if seen is None else arrays | {SEEN: seen})


def _with_refused(bad: pd.DataFrame, refused: list[Unreadable]) -> pd.DataFrame:
    import pandas as pd

    rows = [(one.file.path, one.file.bytes, one.file.stamp, one.reason, "") for one in refused]
    return pd.concat([bad, pd.DataFrame(rows, columns=list(QUARANTINE))], ignore_index=True) if rows else bad


def _rows(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    columns = ["id", "pixels_sha256", "phash"]
    return pd.concat([table[columns] for table in tables], ignore_index=True).dropna()


def _whole(parts: list[MeasuredImages], champion: Champion) -> MeasuredImages:
    import pandas as pd

    if parts:
        arrays = joined([one.arrays for one in parts])
        return MeasuredImages(pd.concat([one.table for one in parts], ignore_index=True), arrays)
    reference = champion.reference.observations
    text = ["path", "stamp", "id", "pixels_sha256", "format", "key", "status", "scored_by"]
    table = pd.DataFrame({name: pd.Series(dtype=str) for name in text} | {"phash": pd.Series(dtype="uint64")})
    nothing = {
        "embeddings": reference.embeddings[:0],
        "probabilities": reference.probabilities[:0],
        "small": np.zeros((0, 18, 24), np.uint8),
    }
    return MeasuredImages(table, nothing)


# ---------------------------------------------------------------------------------------------------------- results


def scores(raw: NDArray[Any], reference: Reference) -> NDArray[np.floating]:
    """Return the network's probabilities (N, C) calibrated as the version serves them."""
    return calibrated(raw, reference.temperature) if reference.task.exclusive else raw.astype(np.float64)


def scored(images: pd.DataFrame, window: Observations, judgement: Judgement, reference: Reference) -> pd.DataFrame:
    """Return the images with the findings on each: class, confidence, p_CLASS, distance, error, group."""
    columns: dict[str, Any] = {
        f"p_{name}": window.probabilities[:, place] for place, name in enumerate(reference.classes)
    }
    return images.assign(
        **columns,
        predicted=[reference.classes[place] for place in window.predicted],
        confidence=window.probabilities.max(axis=1),
        distance=judgement.distance,
        reconstruction_error=judgement.error,
        group=window.groups,
    )


def result_of(
    state: SiteState,
    champion: Champion,
    judgement: Judgement,
    window: Observations,
    table: pd.DataFrame,
    quarantined: pd.DataFrame,
    missed: list[NotFetched],
    known_of_them: Known,
    against: Looks,
    settings: Settings,
) -> Result:
    """Return the result of looking at a site, as it is kept and shown; `against` is what it was compared with."""
    counts = table["status"].value_counts()
    new, repeats = int(counts.get(NEW, 0)), int(counts.get(REPEAT, 0))
    verdict, reasons = judgement.verdict, list(judgement.reasons)
    findings = _findings(new, repeats, len(quarantined), missed, settings.drift)
    # First, because the other findings take images for independent that metadata.csv may tie together.
    lost = _lost_rows(table, known_of_them, settings.drift)
    if (findings or lost) and verdict == OK:
        verdict = WATCH
    reasons = lost + reasons + findings
    if not reasons:
        reasons = [f"nothing that chance does not explain in {new} images"]
    basis = (
        f"{new} images of {window.group_count} independent photographs or videos, against "
        f"{len(against)} images of {len(np.unique(against.groups))} in the reference"
    )
    plain = asdict(judgement)
    for array in ("distance", "error", "nearest", "verdict", "reasons"):
        plain.pop(array)
    found = {
        "site": state.site,
        "window": None if verdict == FEW else state.next_window(),
        "verdict": verdict,
        "reasons": reasons,
        "basis": basis,
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "captured": captured_between(table),
        "champion": champion.reference.champion
        | {"data_md5": champion.version.read("provenance.json").get("data_md5")},
        "registry_was_down": champion.version.from_cache,
        "violation": champion.reference.violation,
        "counts": {
            "new": new,
            "groups": window.group_count,
            "copies of training images": int(counts.get(COPY, 0)),
            "repeats": repeats,
            "delivered again": int(counts.get(AGAIN, 0)),
            "quarantined": len(quarantined),
        },
        "quarantined": quarantined[["path", "reason"]].head(50).to_dict("records"),
        "metadata": known_of_them.summary() if known_of_them.table.rows or known_of_them.said else None,
        "level": settings.drift.alpha / settings.drift.horizon,
        **plain,
    }
    return cast(Result, found)


def _findings(new: int, repeats: int, quarantined: int, missed: list[NotFetched], params: DriftParams) -> list[str]:
    found = []
    if missed:
        first = missed[0]
        found.append(
            f"{len(missed)} files were not to be had from the source (the first: {first.file.path} {first.reason}): "
            "they are tried again in the next run"
        )
    if repeats and repeats / (new + repeats) >= params.repeated_share:
        found.append(f"{repeats} of {new + repeats} pictures repeat others: is a camera stuck?")
    if quarantined and quarantined / (new + repeats + quarantined) >= params.quarantined_share:
        found.append(
            f"{quarantined} of {new + repeats + quarantined} files can't be read: is a camera or an upload broken?"
        )
    return found


def captured_between(table: pd.DataFrame) -> list[str] | None:
    """Return the first and last time of the column captured_at, in UTC; None where it holds no time.

    As text, 2026-5-2 would come after 2026-10-1, and 01:00+02:00 after 00:30Z.
    """
    import pandas as pd

    if "captured_at" not in table:
        return None
    times = pd.to_datetime(table["captured_at"].astype("string"), format="ISO8601", utc=True, errors="coerce").dropna()
    return [times.min().isoformat(), times.max().isoformat()] if len(times) else None


def _lost_rows(table: pd.DataFrame, known: Known, params: DriftParams) -> list[str]:
    """Return a finding where many rows of metadata.csv match nothing while new images have none."""
    unmatched, rows = len(known.fits.unmatched), len(known.table.rows)
    new = table.loc[table["status"] == NEW, "path"]
    without = sum(path not in known.fits.of for path in new)
    if not rows or not without or unmatched / rows < params.quarantined_share:
        return []
    first = next(iter(known.fits.unmatched))
    return [
        f"{unmatched} of {rows} rows of metadata.csv match no picture (the first: {first}), and {without} of "
        f"{len(new)} new images have no row: they count as independent, though they may not be"
    ]


def put_to_label(
    source: Source,
    result: Result,
    images: pd.DataFrame,
    new: MeasuredImages,
    window: Observations,
    champion: Champion,
    settings: Settings,
) -> None:
    """Write the folder of images to label, and note in the result of their window where it is and which are drawn.

    Those drawn at random come first: who labels a part only begins with what the site's accuracy can be told from.
    """
    params, reference, name = settings.drift, champion.reference, str(result["window"])
    # Of several labels none is right or wrong as a whole.
    most = params.label_random if reference.task.exclusive else 0
    drawn = drawn_evenly(window.groups, most, [params.seed, int(name)])
    confidence, distance = images["confidence"].to_numpy(), images["distance"].to_numpy()
    embeddings = new.arrays["embeddings"]
    chosen = choose(confidence, distance, embeddings, window.groups, params.label_first, drawn.tolist())
    rows = images.iloc[np.concatenate([drawn, chosen])]
    folder = write_to_label(source, result["site"], name, rows, reference.classes, reference.champion)
    if folder:
        result["to_label"], result["drawn"] = str(folder), list(images["id"].iloc[drawn])


def furthest(
    source: Source, images: pd.DataFrame, judgement: Judgement, reference: Reference, settings: Settings
) -> list[Furthest]:
    """Return the images furthest from the reference with the nearest known one of each, as small pictures."""
    assert judgement.nearest is not None
    shown: list[Furthest] = []
    taken: set[int] = set()
    for row in np.argsort(-images["distance"].to_numpy(), kind="stable"):
        image, nearest = images.iloc[row], int(judgement.nearest[row])
        if len(shown) == settings.drift.shown:
            break
        if int(image["group"]) in taken:
            continue
        taken.add(int(image["group"]))
        shown.append(
            {
                "path": str(image["path"]),
                "distance": float(image["distance"]),
                "predicted": str(image["predicted"]),
                "confidence": float(image["confidence"]),
                "picture": picture_of(source, str(image["path"]), settings.data.max_pixels),
                "nearest": reference.paths[nearest],
                "nearest_label": reference.classes[int(reference.labels[nearest])],
                "nearest_picture": reference.thumbnails[nearest].hex() if reference.thumbnails else None,
            }
        )
    return shown


# ---------------------------------------------------------------------------------------------------------- command


def in_lines(result: Result) -> list[str]:
    """Return a result as lines to print."""
    window = f" in window {result['window']}" if result["window"] else ""
    version = result["champion"]
    lines = [
        f"{result['site']}: {result['verdict']}{window}, champion version {version['version']} ({version['candidate']})"
    ]
    lines += [f"  - {reason}" for reason in result["reasons"]]
    lines += [f"  {sentence}" for sentence in [*(result["metadata"] or {"said": []})["said"], *result["notes"]]]
    if over_time := result.get("over_time"):
        lines += [f"  {over_time['note']}"] if over_time["note"] else []
    if retrained := result.get("retrained"):
        lines.append(f"  {retrained['said']}")
    if result["window"]:
        lines.append(f"  rests on {result['basis']}")
    for name, figure in (("accuracy", result["accuracy"]), (f"recall of {result['violation']}", result["recall"])):
        if figure:
            lines.append(f"  expected {name} {figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})")
    if result["accuracy"]:
        lines.append("  (expected figures hold if confidence means there what it meant on the reference)")
    if labelled := result.get("labelled"):
        lines += [f"  {sentence}" for sentence in labelled["said"]]
    if result.get("to_label"):
        lines.append(f"  worth labelling first: {result['to_label']} (fill labels.csv, then plumbline intake)")
    if result["registry_was_down"]:
        lines.append("  the registry does not answer: judged by the champion it had when it last did")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Judge the sites asked for, draw the pages, print the verdicts; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.drift", description="Judge sites' new images.")
    parser.add_argument("site", nargs="*", help="a folder under drift.source")
    parser.add_argument("--every-site", action="store_true", help="those listed under `sites` in params.yaml")
    parser.add_argument("--record", type=Path, help="write the verdicts there and end with 0 unless it failed")
    parser.add_argument("--result", type=Path, help="write the verdicts there, too, once all is judged")
    parser.add_argument(
        "--pages", choices=PAGES, default="now", help="draw the pages now, later, or do nothing else (now)"
    )
    given = parser.parse_args(arguments)
    listed = site_names()
    sites = [checked_site(site) for site in given.site] or (listed if given.every_site else [])
    if not sites:
        parser.error("name a site, or --every-site")
    drift = load_section("drift", DriftParams)
    model = load_section("promote", PromoteParams).model
    if given.pages == "only":
        draw(sites, model, drift, listed)
        return 0
    data, group = load_section("data", DataParams), load_section("group", GroupParams)
    settings = Settings(drift, data, group, load_section("ingest", IngestParams, optional=True), tuple(listed))
    pages = artefacts.DRIFT_PAGES.path
    why = no_verdict_in_experiments() if given.record else None
    if given.record and why and given.record.is_file() and (pages / "index.html").is_file():
        print(why)  # what there is stays
        return 0
    why = why or no_champion(model)
    if given.record and why:
        write_index(pages, drift.state, [], why)
        write_json(given.record, {"verdict": None, "reason": why, "sites": {}})
        print(why)
        return 0
    if why:
        raise UserError(why)
    champion = load_champion(model)
    results = []
    for site in sites:
        try:
            results.append(judge_site(site, champion, settings))
        except NothingSentError as error:
            if not given.record:
                raise
            print(f"{site}: {error}")
            continue
        print("\n".join(in_lines(results[-1])), flush=True)
    # The verdicts first: pages take seconds, and may find the disk full.
    for asked in (given.result, given.record):
        if asked:
            write_json(asked, record_of(results))
    if given.pages == "now":
        draw(sites, model, drift, listed)
    return 0 if given.record else EXIT[worst([result["verdict"] for result in results])]


def draw(sites: list[str], model: str, params: DriftParams, listed: list[str]) -> None:
    """Draw the index of every site and, where they are missing, the pages of the windows of `sites`."""
    pages = artefacts.DRIFT_PAGES.path
    write_index(pages, params.state, listed, judged=sites)
    print(f"  page: {(pages / 'index.html').resolve().as_uri()}", flush=True)
    known = len(set(known_sites(params.state)) | set(listed))
    drawn = [keep_history(SiteState(params.state, site), pages, model, params, known) for site in sites]
    if any(drawn):
        write_index(pages, params.state, listed, judged=sites)


def record_of(results: list[Result]) -> dict[str, Any]:
    """Return the verdict on each site as plain data: verdict, the sentence about it, window, reasons, counts."""
    sites = {
        one["site"]: {
            "said": in_lines(one)[0],
            "verdict": one["verdict"],
            "window": one["window"],
            "reasons": one["reasons"],
            "counts": one["counts"],
            "accepted_images": one["accepted"]["images"],
            "over_time": one["over_time"]["found"] if "over_time" in one else [],
            "labelled": labelled["said"] if (labelled := one.get("labelled")) else [],
        }
        for one in results
    }
    return {"verdict": worst([one["verdict"] for one in results]) if results else None, "reason": "", "sites": sites}


def no_verdict_in_experiments() -> str | None:
    """Return why the stage judges nothing inside `dvc exp run`, None outside: its windows would count for all runs."""
    if not experiment(Path()):
        return None
    return "Not judged: this is a DVC experiment; `dvc repro` judges the sites."


def no_champion(model: str) -> str | None:
    """Return why nothing can be judged yet, None where there is a champion."""
    uri = registry.registry_uri()
    gone = ""
    if registry.exists(uri):
        try:
            opened = registry.open_registry(model, uri)
            with registry.readable_errors(uri):
                if registry.find(opened, CHAMPION) is not None:
                    return None
                gone = history.what_became_of_it(opened)
        except registry.RegistryDownError:
            return None  # the last one known here may still judge
    why, way_out = "since the gate promoted none", "`plumbline history` says why"
    if gone:
        why, way_out = f"since {gone}", "`plumbline rollback --to VERSION --reason TEXT` makes one"
    return f"Not judged: the registry {registry.shown_uri(uri)} has no champion, {why}. {way_out}."


def worst(verdicts: list[str]) -> str:
    """Return the worst of several verdicts."""
    return max(verdicts, key=[OK, WATCH, FEW, DRIFT].index)


def command(arguments: list[str] | None = None) -> None:
    """Run `main`; any error ends with exit code 3, because 1 means DRIFT."""
    run(lambda: sys.exit(main(arguments)), failed=ERROR)


if __name__ == "__main__":
    command()
