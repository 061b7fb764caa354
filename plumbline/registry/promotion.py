"""Register the chosen candidate in MLflow and make it champion, or record why not; and undo it.

    python -m stages.promote [--dry-run] [--force --reason TEXT]
    python -m stages.promote rollback [--to VERSION] --reason TEXT [--dry-run]
    python -m stages.promote history

Reads what the stages before left under build/, writes build/promotion.json. HOLD and REJECT are results: the champion
stays, the refusal goes into the registry's log, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from plumbline.common.errors import UserError
from plumbline.common.files import write_json
from plumbline.common.params import Section, load_section
from plumbline.registry import bundle
from plumbline.registry import history as audit
from plumbline.registry import versions as registry
from plumbline.registry.champion import paired_predictions
from plumbline.registry.chosen import Chosen, Pictures, provenance, read_chosen, read_decision
from plumbline.registry.folder import build_folder
from plumbline.registry.history import Entry
from plumbline.registry.versions import CHAMPION, PREVIOUS, Registry

if TYPE_CHECKING:
    import keras
    import pandas as pd

BUILD = Path("build")
PROMOTION = BUILD / "promotion.json"


class PromoteParams(Section):
    """Section `promote`."""

    model: str = Field(default=registry.MODEL, pattern=r"^[A-Za-z0-9_.-]+$")
    lock_timeout: float = Field(default=600, gt=0)
    onnx_tolerance: float = Field(default=1e-4, gt=0, lt=0.1)
    score_tolerance: float = Field(default=0.02, gt=0, lt=0.5)
    reference_images: int = Field(default=500, ge=30)
    batch_size: int = Field(default=32, ge=1)
    minimum_unseen_groups: int = Field(default=20, ge=1)


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    force: bool = False
    reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class Project:
    """Where promotion reads, and what it needs from other rooms.

    `pictures(paths, size)` yields images (size, size, 3) uint8, or as they are where size is None; `load(candidate
    folder, features folder)` assembles the network; `compare(champion's, challenger's scores, classes, manifest,
    several labels)` returns {passed, rules}; `export` writes a version's folder.
    """

    build: Path
    root: Path
    pictures: Pictures
    load: Callable[[Path, Path], keras.Model]
    compare: Callable[[pd.DataFrame, pd.DataFrame, list[str], pd.DataFrame, bool], dict[str, Any]]
    export: Callable[..., dict[str, float]] = build_folder


def refusal(decision: dict[str, Any], wish: Wish) -> str | None:
    """Return why the verdict forbids promotion, or None if it allows it or is overruled by force."""
    if decision["verdict"] == "PROMOTE" or wish.force:
        return None
    failed = [f"{rule['name']}: {rule['reason']}" for rule in decision.get("rules", []) if not rule["passed"]]
    return f"The gate said {decision['verdict']}. {'; '.join(failed) or 'No rule gave a reason'}."


def judge_comparison(comparison: dict[str, Any], champion: int, minimum_groups: int) -> str | None:
    """Return why the challenger may not take the champion's place, or None if it may.

    `comparison` holds {groups, passed, rules}: too few groups prove nothing (HOLD), a failed rule is a REJECT.
    """
    if comparison["groups"] < minimum_groups:
        return (
            f"HOLD: only {comparison['groups']} groups of test images are unseen by champion version {champion}, "
            f"promote.minimum_unseen_groups asks for {minimum_groups}: add labelled images that it never saw."
        )
    failed = [f"{rule['name']}: {rule['reason']}" for rule in comparison["rules"] if not rule["passed"]]
    if comparison["passed"]:
        return None
    return f"REJECT: worse than champion version {champion} on images that neither learnt from: {'; '.join(failed)}."


def promote(params: PromoteParams, wish: Wish, project: Project) -> dict[str, Any]:
    """Carry out build/decision.json and return what promotion.json holds.

    Safe to repeat: what a killed run left is cleared away, and the same decision on the same weights never becomes a
    second version. Raises UserError, and leaves the champion as it was, if anything stands in the way.
    """
    decision = read_decision(project.build)
    uri = registry.registry_uri()
    if wish.dry_run and not registry.exists(uri):
        why = refusal(decision, wish)
        return outcome(decision, uri, "would refuse" if why else "would promote", why or "It would be the first.")
    opened = registry.open_registry(params.model, uri)
    with registry.readable_errors(uri), registry.locked(opened, params.lock_timeout):
        if not wish.dry_run:
            registry.clear_leftovers(opened)
            audit.settle(opened)
        step = _Step(opened, decision, registry.number(registry.find(opened, CHAMPION)), wish)
        try:
            return _decide_and_act(step, params, project)
        except UserError as error:
            step.note_failure(str(error))
            raise


def _decide_and_act(step: _Step, params: PromoteParams, project: Project) -> dict[str, Any]:
    opened, wish = step.opened, step.wish
    why = refusal(step.decision, wish)
    if why:
        return step.refuse(why)
    chosen = read_chosen(project.build, step.decision)
    known = registry.find_by_tag(opened, registry.FINGERPRINT_TAG, chosen.fingerprint)
    if known and registry.number(known[0]) == step.champion:
        registry.fetch(opened, known[0])
        return step.unchanged(int(known[0].version))
    withdrawn = _withdrawn(opened, chosen)
    if withdrawn and not wish.force:
        return step.refuse(f"{withdrawn} Its weights come back only by --force --reason TEXT.")
    if known:
        # It passed the comparison before it was made a version; the champion it was compared with may be another now.
        folder = registry.fetch(opened, known[0]).folder
        why, comparison = _against_champion(step, params, project, chosen, folder)
        return step.refuse(why, comparison) if why else step.move(int(known[0].version), comparison)
    with tempfile.TemporaryDirectory(prefix="plumbline-promote-") as temporary:
        folder = Path(temporary) / "version"
        origin = provenance(project.root, chosen.manifest)
        network = project.load(chosen.folder, chosen.features)
        figures = project.export(
            folder,
            chosen,
            network,
            project.pictures,
            origin,
            params.onnx_tolerance,
            params.reference_images,
            params.batch_size,
        )
        why = _served_differently(figures["score_difference"], params.score_tolerance, wish)
        if why:
            return step.refuse(why)
        why, comparison = _against_champion(step, params, project, chosen, folder)
        if why:
            return step.refuse(why, comparison)
        if wish.dry_run:
            return step.move(None, comparison)
        write_json(folder / bundle.HOME / "comparison.json", comparison)
        version = registry.register(
            opened,
            folder,
            bundle.seal(folder),
            chosen.name,
            tags_of(chosen, origin, wish),
            metrics_of(chosen) | figures,
            params_of(chosen),
            description_of(chosen, origin, comparison, wish),
        )
    return step.move(version, comparison)


def _served_differently(difference: float, tolerance: float, wish: Wish) -> str | None:
    if difference <= tolerance or wish.force:
        return None
    return (
        f"On the same pictures the exported model differs from what was evaluated by {difference:.3f} on average, more "
        f"than promote.score_tolerance {tolerance}: the features are out of date or computed too roughly. "
        "Run `dvc repro -f` from featurize."
    )


def _withdrawn(opened: Registry, chosen: Chosen) -> str | None:
    for record in registry.find_by_tag(opened, registry.WEIGHTS_TAG, chosen.weights_sha256):
        reason = record.tags.get(registry.WITHDRAWN_TAG)
        if reason is not None:
            return f"These weights are version {record.version}, rolled back because: {reason.rstrip('.')}."
    return None


def _against_champion(
    step: _Step, params: PromoteParams, project: Project, chosen: Chosen, folder: Path
) -> tuple[str | None, dict[str, Any]]:
    """Compare the version in `folder` with the champion: (why not, the comparison); force overrules it."""
    if step.champion is None:
        return None, {"champion": None, "note": "There was no champion to compare with."}
    record = registry.find(step.opened, step.champion)
    try:
        champion = registry.fetch(step.opened, record)
        old, new = paired_predictions(chosen, folder / bundle.ONNX, champion, project.pictures, params.batch_size)
        groups = int(old["group"].nunique())
        found = project.compare(old, new, chosen.classes, chosen.manifest, chosen.several)
    except UserError as error:
        if step.wish.force:
            return None, {"champion": step.champion, "note": f"Not compared, promoted by force: {error}"}
        return f"HOLD: {error}", {"champion": step.champion, "note": str(error)}
    comparison = {"champion": step.champion, "images": len(old), "groups": groups, **found}
    why = judge_comparison(comparison, step.champion, params.minimum_unseen_groups)
    return (None if step.wish.force else why), comparison


@dataclass(frozen=True)
class _Step:
    """The end of a run: the alias, the log and promotion.json say the same."""

    opened: Registry
    decision: dict[str, Any]
    champion: int | None
    wish: Wish

    def refuse(self, why: str, comparison: dict[str, Any] | None = None) -> dict[str, Any]:
        if self.wish.dry_run:
            return self._outcome("would refuse", why, self.champion, comparison)
        audit.append(self.opened, self._entry("refused", why, None))
        return self._outcome("refused", why, self.champion, comparison)

    def unchanged(self, version: int) -> dict[str, Any]:
        why = f"This decision on these weights is version {version}, champion already."
        if not self.wish.dry_run:
            audit.append(self.opened, self._entry("unchanged", why, version))
        return self._outcome("unchanged", why, version, None)

    def move(self, version: int | None, comparison: dict[str, Any]) -> dict[str, Any]:
        if self.wish.dry_run or version is None:
            return self._outcome("would promote", "Nothing was changed: --dry-run.", self.champion, comparison)
        why = self.wish.reason if self.wish.force else "Every rule passed."
        audit.carry_out(self.opened, self._entry("begun", why, version))
        return self._outcome("promoted", why, version, comparison)

    def note_failure(self, why: str) -> None:
        if not self.wish.dry_run:
            with suppress(UserError, Exception):  # a registry that is down or full can't be told so
                audit.append(self.opened, self._entry("failed", why, None))

    def _entry(self, what: str, why: str, version: int | None) -> Entry:
        return Entry(
            action="promote",
            outcome=what,
            reason=why[: audit.LONGEST_REASON],
            version=version,
            candidate=str(self.decision.get("candidate") or ""),
            verdict=self.decision["verdict"],
            forced=self.wish.force,
            champion_before=self.champion,
            champion_after=self.champion,
        )

    def _outcome(self, what: str, why: str, champion: int | None, comparison: dict[str, Any] | None) -> dict[str, Any]:
        return outcome(self.decision, self.opened.uri, what, why, champion, self.champion, comparison)


def outcome(
    decision: dict[str, Any],
    uri: str,
    what: str,
    why: str,
    champion: int | None = None,
    champion_before: int | None = None,
    comparison: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what build/promotion.json holds."""
    return {
        "outcome": what,
        "reason": why,
        "verdict": decision["verdict"],
        "candidate": decision.get("candidate"),
        "champion": champion,
        "champion_before": champion_before,
        "comparison": comparison,
        "registry": registry.shown_uri(uri),
    }


def tags_of(chosen: Chosen, origin: dict[str, Any], wish: Wish) -> dict[str, str]:
    """Return the tags that MLflow shows beside the version."""
    tags = {
        "verdict": chosen.decision["verdict"] + (" (forced)" if wish.force else ""),
        "candidate": chosen.name,
        "test accuracy": _with_interval(chosen.row, "accuracy"),
        "weights": str(chosen.row["weights"]),
        "parameters": f"{chosen.row['parameters']:,}",
        "data version": origin["data_md5"] or f"manifest {origin['manifest_sha256'][:12]}",
        "git commit": (origin["git_commit"] or "none") + (" with changes" if origin["git_changed"] else ""),
        "dvc.lock": origin["dvc_lock_sha256"] or "none",
        registry.FINGERPRINT_TAG: chosen.fingerprint,
        registry.WEIGHTS_TAG: chosen.weights_sha256,
    }
    violation = chosen.evaluation["violation_class"]
    if violation is not None:
        tags[f"test recall {violation}"] = _with_interval(chosen.row, f"recall:{violation}")
    if wish.force:
        tags["forced because"] = wish.reason
    return tags


def _with_interval(row: dict[str, Any], score: str) -> str:
    low, high = row["intervals"]["test"][score]
    return f"{row['metrics']['test'][score]:.3f} (95%: {low:.3f} to {high:.3f})"


def metrics_of(chosen: Chosen) -> dict[str, float]:
    """Return the leaderboard row as MLflow metrics: `test accuracy`, `validation log_loss`, ..."""
    return {
        f"{split} {score.replace(':', ' ')}": float(value)
        for split, values in chosen.row["metrics"].items()
        for score, value in values.items()
    }


def params_of(chosen: Chosen) -> dict[str, str]:
    """Return how the candidate was trained, as MLflow params."""
    flat = {key: value for key, value in chosen.model.get("settings", {}).items() if not isinstance(value, dict)}
    flat |= {key: chosen.model[key] for key in ("seed", "image_size", "weights") if key in chosen.model}
    return {key: str(value) for key, value in flat.items() if value is not None}


def description_of(chosen: Chosen, origin: dict[str, Any], comparison: dict[str, Any], wish: Wish) -> str:
    """Return the version's page in Markdown: the verdict, its rules, where it comes from."""
    rules = [
        f"| {rule['name']} | {_short(rule['value'])} | {_short(rule['bound'])} | "
        f"{'passed' if rule['passed'] else '**failed**'} |"
        for rule in [*chosen.decision.get("rules", []), *comparison.get("rules", [])]
    ]
    lines = [
        f"{chosen.decision['verdict']} {chosen.name}: test accuracy {_with_interval(chosen.row, 'accuracy')}.",
        *([f"Promoted by force: {wish.reason}"] if wish.force else []),
        "",
        "| rule | figure | bound | verdict |",
        "|---|---|---|---|",
        *rules,
        "",
        f"{origin['images']:,} images, data version {origin['data_md5'] or origin['manifest_sha256']}, "
        f"commit {origin['git_commit'] or 'none'}, weights {chosen.row['weights']}.",
    ]
    return "\n".join(lines)[:5000]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rollback(params: PromoteParams, to: int | None, reason: str, dry_run: bool) -> str:
    """Make version `to` (by default the one before) champion again; return one sentence. The log keeps the reason.

    The version that is left is marked: promotion takes its weights back only by force. Refusals are logged, too.
    """
    uri = registry.registry_uri()
    if not registry.exists(uri):
        raise UserError(f"There is no registry at {registry.shown_uri(uri)} yet: nothing to roll back.")
    opened = registry.open_registry(params.model, uri)
    with registry.readable_errors(uri), registry.locked(opened, params.lock_timeout):
        if not dry_run:
            audit.settle(opened)
        champion = registry.number(registry.find(opened, CHAMPION))
        target = to if to is not None else _one_before(opened, champion)
        base = Entry("rollback", "begun", reason, target, champion_before=champion, champion_after=champion)
        try:
            _check_target(opened, target, champion)
        except UserError as error:
            if not dry_run:
                why = f"{error} (asked because: {reason})"[: audit.LONGEST_REASON]
                audit.append(opened, replace(base, outcome="refused", reason=why))
            raise
        assert target is not None
        if dry_run:
            return f"Would roll back from version {champion} to version {target}; nothing was changed."
        audit.carry_out(opened, base)
        return f"Rolled back from version {champion} to version {target}: {reason}"


def _one_before(opened: Registry, champion: int | None) -> int | None:
    previous = registry.number(registry.find(opened, PREVIOUS))
    if previous is not None and previous != champion:
        return previous
    # A run killed between the two aliases leaves `previous` on the champion itself: the log knows better.
    earlier = [version for version in audit.champions(audit.entries(opened)) if version != champion]
    return earlier[-1] if earlier else None


def _check_target(opened: Registry, target: int | None, champion: int | None) -> None:
    if champion is None:
        raise UserError("There is no champion to roll back from.")
    if target is None:
        raise UserError(f"Version {champion} is the only champion there ever was: nothing to roll back to.")
    if target == champion:
        raise UserError(f"Version {target} is champion already: `python -m stages.promote history` lists the others.")
    record = registry.find(opened, target)
    if record is None:
        raise UserError(f"There is no version {target}: `python -m stages.promote history` lists what there is.")
    registry.fetch(opened, record)


def history(params: PromoteParams) -> list[str]:
    """Return the versions and the log as lines of text."""
    uri = registry.registry_uri()
    if not registry.exists(uri):
        return [f"Nothing yet: there is no registry at {registry.shown_uri(uri)}."]
    opened = registry.open_registry(params.model, uri)
    with registry.readable_errors(uri):
        log, problems = audit.entries(opened), audit.broken_links(opened)
        champion = registry.number(registry.find(opened, CHAMPION))
        previous = registry.number(registry.find(opened, PREVIOUS))
        records = opened.client.search_model_versions(f"name = '{opened.model}'")
    lines = [f"Registry {registry.shown_uri(uri)}, model {opened.model}"]
    for record in sorted(records, key=lambda record: int(record.version)):
        roles = {champion: " champion", previous: " previous"}.get(int(record.version), "")
        accuracy = record.tags.get("test accuracy", "")
        back = f"; rolled back: {record.tags[registry.WITHDRAWN_TAG]}" if registry.WITHDRAWN_TAG in record.tags else ""
        lines.append(f"  version {record.version}{roles}: {record.tags.get('candidate')}, accuracy {accuracy}{back}")
    settled = {entry.settles for entry in log}
    log = [entry for entry in log if audit.digest(entry) not in settled]  # their outcome is shown
    lines += [f"{entry.number:4d} {entry.at[:19].replace('T', ' ')} {audit.describe(entry)}" for entry in log]
    return lines + [f"WARNING: {problem}" for problem in problems]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a force or a rollback without a reason is refused."""
    parser = argparse.ArgumentParser(prog="python -m stages.promote", description="Promote, roll back, look back.")
    commands = parser.add_subparsers(dest="command", metavar="{rollback,history}")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")
    parser.add_argument("--force", action="store_true", help="promote against the verdict; needs --reason")
    parser.add_argument("--reason", default="", help="goes into the registry's log")
    back = commands.add_parser("rollback", help="make an earlier version champion again")
    back.add_argument("--to", type=int, metavar="VERSION", help="default: the champion before this one")
    back.add_argument("--reason", required=True)
    back.add_argument("--dry-run", action="store_true")
    commands.add_parser("history", help="versions and every action taken or refused")
    found = parser.parse_args(arguments)
    if getattr(found, "force", False) and not found.reason.strip():
        parser.error("--force needs --reason TEXT: it is kept in the registry's log")
    if found.command == "rollback" and not found.reason.strip():
        parser.error("--reason must say something: it is kept in the registry's log")
    return found


def load_network(folder: Path, features: Path) -> keras.Model:
    """Assemble the candidate's whole network."""
    from plumbline.models.assemble import load_candidate

    return load_candidate(folder, features)


def read_pictures(paths: list[str], size: int | None) -> Any:
    """Yield the pictures of data/ (size, size, 3), uint8 RGB, in order; of their own size where it is None."""
    from plumbline.imaging.collection import DataParams, iter_rgb

    return iter_rgb(load_section("data", DataParams), paths, (size, size) if size else None)


def compare(
    old: pd.DataFrame, new: pd.DataFrame, classes: list[str], manifest: pd.DataFrame, several: bool
) -> dict[str, Any]:
    """Compare two models' scores of the same images by the gate's rule: no worse overall nor in any slice."""
    from plumbline.evidence.rules import Gate, compare_with_champion
    from plumbline.evidence.slices import slicings

    shared = manifest.set_index("path").loc[sorted(old["path"])].reset_index()
    cuts, _ = slicings(shared)
    return compare_with_champion(old, new, classes, cuts, load_section("gate", Gate), several)
