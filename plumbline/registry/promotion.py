"""Register the chosen candidate in MLflow and make it champion, or record why not; and undo it.

    plumbline promote [--dry-run] [--here --reason TEXT] [--force --reason TEXT]
    plumbline rollback [--to VERSION] --reason TEXT [--dry-run] [--model NAME]
    plumbline history [--model NAME]

Reads what the stages before left under build/. HOLD and REJECT are results: the champion stays, the refusal goes into
the registry's log, and the exit code is 0. Inside an experiment, or from a branch, commit or workspace that
`promote.place` does not allow, the registry is not touched at all.
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
from plumbline.common.params import Section, load_section
from plumbline.common.records import write_record
from plumbline.common.served import CHALLENGER, CHAMPION, ServedAs
from plumbline.evidence.records import AgainstChampion, Decision, Rule
from plumbline.evidence.results import FAILED, NOT_JUDGED, result_of
from plumbline.imaging.decode import Fit
from plumbline.registry import bundle
from plumbline.registry import history as journal
from plumbline.registry import versions as registry
from plumbline.registry.champion import Pair, paired_predictions
from plumbline.registry.chosen import Chosen, Pictures, Promotable, provenance, read_chosen, read_decision
from plumbline.registry.folder import build_folder
from plumbline.registry.history import Entry
from plumbline.registry.place import Place, is_newer, why_not_here, why_older
from plumbline.registry.records import Compared, Outcome, Promotion, Provenance, digest_of
from plumbline.registry.trial import Trial, better, in_words, read_verdict
from plumbline.registry.versions import PREVIOUS, Registry

if TYPE_CHECKING:
    import keras


COMMIT_TAG = "git commit"
MAIN_TAGS = ("test accuracy", "test mAP50")
"""The figure of a version that `history` shows."""


class PromoteParams(Section):
    """params.yaml, section `promote`."""

    model: str = Field(default=registry.MODEL, pattern=r"^[A-Za-z0-9_.-]+$")
    lock_timeout: float = Field(default=600, gt=0)
    onnx_tolerance: float = Field(default=1e-4, gt=0, lt=0.1)
    score_tolerance: float = Field(default=0.02, gt=0, lt=0.5)
    reference_images: int = Field(default=1000, ge=30)
    batch_size: int = Field(default=32, ge=1)
    minimum_unseen_groups: int = Field(default=20, ge=1)
    place: Place = Place()
    trial: Trial = Trial()


@dataclass(frozen=True)
class Wish:
    """The command line; `here` overrules only the rules of place, `force` every refusal."""

    force: bool = False
    reason: str = ""
    dry_run: bool = False
    here: bool = False


@dataclass(frozen=True)
class Project:
    """The paths that promotion reads, and the functions it needs from other rooms.

    `pictures(paths, size)` yields images (size, size, 3) uint8, or as they are where size is None; `load(folder of what
    was chosen, folder of the features it stands on)` assembles the network, or of a compressed candidate returns its
    file; `compare(both on the same images, what was chosen)` says whether the challenger may replace the champion;
    `served` is where serving keeps what it found of champion and challenger; `export` writes a version's folder. By
    default these are of classifiers; `decided` and `read` read the decision and what it chose, `pair` has champion and
    challenger answer the same images.
    """

    build: Path
    root: Path
    pictures: Pictures
    load: Callable[[Path, Path], Any]
    compare: Callable[[Pair, Any], AgainstChampion]
    served: Path = ServedAs().state
    export: Callable[..., dict[str, float]] = build_folder
    decided: Callable[[Path], Decision] = read_decision
    read: Callable[[Path, Decision], Promotable] = read_chosen
    pair: Callable[[Any, Path, registry.Version, Pictures, int], Pair] = paired_predictions


def refusal(decision: Decision, wish: Wish) -> str | None:
    """Return why the verdict forbids promotion, or None if it allows it or is overruled by force."""
    if decision.verdict == "PROMOTE" or wish.force:
        return None
    failed = [f"{rule.name}: {rule.reason}" for rule in decision.rules if result_of(rule) in (FAILED, NOT_JUDGED)]
    return f"The gate said {decision.verdict}. {'; '.join(failed) or 'No rule gave a reason'}."


def judge_comparison(comparison: Compared, champion: int, minimum_groups: int) -> str | None:
    """Return why the challenger may not take the champion's place, or None if it may.

    Too few groups are a HOLD, a failed rule is a REJECT.
    """
    if (comparison.groups or 0) < minimum_groups:
        return (
            f"HOLD: only {comparison.groups} groups of test images are unseen by champion version {champion}, "
            f"promote.minimum_unseen_groups asks for {minimum_groups}: add labelled images that it never saw."
        )
    failed = [f"{rule.name}: {rule.reason}" for rule in comparison.rules if not rule.passed]
    if comparison.passed:
        return None
    return f"REJECT: worse than champion version {champion} on images that neither learnt from: {'; '.join(failed)}."


def promote(params: PromoteParams, wish: Wish, project: Project) -> Promotion:
    """Carry out build/decision.json and return what promotion.json holds.

    Safe to repeat: leftovers of a killed run are removed, and the same decision on the same weights never becomes a
    second version. Raises UserError, and leaves the champion as it was, if anything stands in the way.
    """
    decision = project.decided(project.build)
    uri = registry.registry_uri()
    elsewhere = None if wish.here or wish.force else why_not_here(project.root, params.place)
    if elsewhere:
        return outcome(decision, uri, "not here", elsewhere)
    if wish.dry_run and not registry.exists(uri):
        why = refusal(decision, wish)
        return outcome(decision, uri, "would refuse" if why else "would promote", why or "It would be the first.")
    opened = registry.open_registry(params.model, uri)
    with registry.readable_errors(uri), registry.locked(opened, params.lock_timeout):
        if not wish.dry_run:
            registry.clear_leftovers(opened)
            journal.settle(opened)
        champion = registry.find(opened, CHAMPION)
        why = _older(project.root, params.place, champion, wish)
        if why:
            return outcome(decision, uri, "not here", why, registry.number(champion), registry.number(champion))
        step = _Step(opened, decision, registry.number(champion), wish)
        try:
            return _decide_and_act(step, params, project)
        except UserError as error:
            step.note_failure(str(error))
            raise


def _decide_and_act(step: _Step, params: PromoteParams, project: Project) -> Promotion:
    opened, wish = step.opened, step.wish
    why = refusal(step.decision, wish)
    if why:
        return step.refuse(why)
    chosen = project.read(project.build, step.decision)
    known = _known(step, chosen)
    if known and registry.number(known) == step.champion:
        registry.fetch(opened, known)
        return step.unchanged(int(known.version))
    withdrawn = _withdrawn(opened, chosen)
    if withdrawn and not wish.force:
        return step.refuse(f"{withdrawn} Its weights come back only by --force --reason TEXT.")
    if known:
        why = _back_again(step, project.root, int(known.version))
        if why:
            return step.refuse(why)
        # It passed the comparison before it became a version, but perhaps with another champion than the present one.
        folder = registry.fetch(opened, known).folder
        why, comparison = _against_champion(step, params, project, chosen, folder)
        if why:
            return step.refuse(why, comparison)
        return _move_or_try(step, params.trial, project.served, int(known.version), comparison)
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
            return _move_or_try(step, params.trial, project.served, None, comparison)
        write_record(folder / bundle.HOME / "comparison.json", comparison)
        version = registry.register(
            opened,
            folder,
            bundle.seal(folder),
            chosen.name,
            tags_of(chosen, origin, wish),
            chosen.shown.metrics | figures,
            chosen.shown.params,
            description_of(chosen, origin, comparison, wish),
            chosen.shown.kind,
        )
    return _move_or_try(step, params.trial, project.served, version, comparison)


def _move_or_try(step: _Step, terms: Trial, served: Path, version: int | None, comparison: Compared) -> Promotion:
    """Make a version champion, or, where a trial is wanted, challenger until serving has settled which is better.

    A version that serving has found to be worse stays out whether a trial is wanted or not.
    """
    if step.champion is None or step.wish.force:
        return step.move(version, comparison)
    verdict = None if version is None else read_verdict(served, step.champion, version)
    found = verdict and better(verdict.evidence_for_challenger, verdict.evidence_for_champion, terms.alpha)
    if verdict and version is not None and found == "champion":
        if not step.wish.dry_run:
            registry.end_trial(step.opened, version)
        return step.refuse(f"REJECT: served beside champion version {step.champion}, {in_words(verdict)}.", comparison)
    if found == "challenger" or not terms.wanted:
        return step.move(version, comparison)
    return step.put_on_trial(version, f"; so far {in_words(verdict)}" if verdict else "", comparison)


def _older(root: Path, place: Place, champion: Any | None, wish: Wish) -> str | None:
    if champion is None or wish.here or wish.force:
        return None
    return why_older(root, place, _commit_of(champion))


def _commit_of(record: Any) -> str | None:
    """Return the Git commit that a version was made at, None where it was made without Git."""
    commit = str(record.tags.get(COMMIT_TAG, "none")).split()[0]
    return None if commit == "none" else commit


def _known(step: _Step, chosen: Promotable) -> Any | None:
    """Return the version that serves the same: the champion if it does, else the newest; None for none."""
    alike = []
    for record in registry.find_by_tag(step.opened, registry.WEIGHTS_TAG, chosen.weights_sha256):
        if record.tags.get(registry.FINGERPRINT_TAG) == chosen.fingerprint or _serves_alike(step, record, chosen):
            alike.append(record)
    return next((record for record in alike if registry.number(record) == step.champion), next(iter(alike), None))


def _serves_alike(step: _Step, record: Any, chosen: Promotable) -> bool:
    """Whether a version of the same weights serves as `chosen` would: older ones have another fingerprint."""
    with suppress(UserError):
        theirs = registry.fetch(step.opened, record).read("serving.json")
        return all(theirs.get(key) == value for key, value in chosen.served.items())
    return False


def _back_again(step: _Step, root: Path, version: int) -> str | None:
    """Return why a former champion may not come back without being asked: only a newer commit may bring it back."""
    if step.champion is None or step.wish.force or step.wish.here:
        return None
    if version not in journal.champions(journal.entries(step.opened)):
        return None
    if is_newer(root, _commit_of(registry.find(step.opened, step.champion))):
        return None
    return (
        f"These weights are version {version}, which was champion before version {step.champion}: "
        f"`plumbline rollback --to {version} --reason TEXT` makes it champion again."
    )


def _served_differently(difference: float, tolerance: float, wish: Wish) -> str | None:
    if difference <= tolerance or wish.force:
        return None
    return (
        f"On the same pictures the exported model differs from what was evaluated by {difference:.3f} on average, more "
        f"than promote.score_tolerance {tolerance}: the features are out of date or computed too roughly. "
        "Run `dvc repro -f` from featurize."
    )


def _withdrawn(opened: Registry, chosen: Promotable) -> str | None:
    for record in registry.find_by_tag(opened, registry.WEIGHTS_TAG, chosen.weights_sha256):
        reason = record.tags.get(registry.WITHDRAWN_TAG)
        if reason is not None:
            return f"These weights are version {record.version}, rolled back because: {reason.rstrip('.')}."
    return None


def _against_champion(
    step: _Step, params: PromoteParams, project: Project, chosen: Promotable, folder: Path
) -> tuple[str | None, Compared]:
    """Compare the version in `folder` with the champion: (why not, the comparison); force overrules it."""
    number = step.champion or journal.last_champion(step.opened)
    if number is None:
        return None, Compared(champion=None, note="There was no champion to compare with.")
    try:
        champion = _version_of_champion(step.opened, number)
        both = project.pair(chosen, folder, champion, project.pictures, params.batch_size)
        groups = int(both.images["group"].nunique())
        found = project.compare(both, chosen)
    except UserError as error:
        if step.wish.force:
            return None, Compared(champion=number, note=f"Not compared, promoted by force: {error}")
        return f"HOLD: {error}", Compared(champion=number, note=str(error))
    comparison = Compared(
        champion=number, images=len(both.images), groups=groups, passed=found.passed, rules=found.rules
    )
    why = judge_comparison(comparison, number, params.minimum_unseen_groups)
    return (None if step.wish.force else why), comparison


def _version_of_champion(opened: Registry, number: int) -> registry.Version:
    """Return the champion, or the last one, even if it was deleted in MLflow since."""
    record = registry.find(opened, number)
    version = registry.fetch(opened, record) if record is not None else registry.fetch_deleted(opened, number)
    if version is None:
        raise UserError(
            f"Version {number}, the last champion, was deleted in MLflow together with its files, so nothing can be "
            "compared with it: roll back to another version first, or promote with --force --reason TEXT."
        )
    return version


@dataclass(frozen=True)
class _Step:
    """The end of a run, after which alias, journal and promotion.json agree."""

    opened: Registry
    decision: Decision
    champion: int | None
    wish: Wish

    def refuse(self, why: str, comparison: Compared | None = None) -> Promotion:
        if self.wish.dry_run:
            return self._outcome("would refuse", why, self.champion, comparison)
        journal.append(self.opened, self._entry("refused", why, None))
        return self._outcome("refused", why, self.champion, comparison)

    def unchanged(self, version: int) -> Promotion:
        why = f"These weights are version {version}, champion already."
        if not self.wish.dry_run:
            journal.append(self.opened, self._entry("unchanged", why, version))
        done = self._outcome("unchanged", why, version, None)
        return done.model_copy(update={"forced": journal.forced_because(journal.entries(self.opened), version)})

    def move(self, version: int | None, comparison: Compared) -> Promotion:
        if self.wish.dry_run or version is None:
            return self._outcome("would promote", "Nothing was changed: --dry-run.", self.champion, comparison)
        why = self.wish.reason if self.wish.force else f"Every rule passed. {self.wish.reason}".strip()
        journal.carry_out(self.opened, self._entry("begun", why, version))
        done = self._outcome("promoted", why, version, comparison)
        return done.model_copy(update={"forced": self.wish.reason if self.wish.force else None})

    def put_on_trial(self, version: int | None, so_far: str, comparison: Compared) -> Promotion:
        if self.wish.dry_run or version is None:
            return self._outcome("would go on trial", "Nothing was changed: --dry-run.", self.champion, comparison)
        registry.challenge(self.opened, version)
        why = (
            f"Version {version} is the challenger{so_far}. Serve it beside the champion (serving.challenger.mode), "
            "send labels, then `plumbline compare` and `plumbline promote`."
        )
        journal.append(self.opened, self._entry("on trial", why, version))
        return self._outcome("on trial", why, self.champion, comparison)

    def note_failure(self, why: str) -> None:
        if not self.wish.dry_run:
            with suppress(Exception):  # a registry that is down or full can't note it
                journal.append(self.opened, self._entry("failed", why, None))

    def _entry(self, what: str, why: str, version: int | None) -> Entry:
        return Entry(
            action="promote",
            outcome=what,
            reason=why[: journal.LONGEST_REASON],
            version=version,
            candidate=self.decision.candidate,
            verdict=self.decision.verdict,
            forced=self.wish.force,
            champion_before=self.champion,
            champion_after=self.champion,
        )

    def _outcome(self, what: Outcome, why: str, champion: int | None, comparison: Compared | None) -> Promotion:
        return outcome(self.decision, self.opened.uri, what, why, champion, self.champion, comparison)


def outcome(
    decision: Decision,
    uri: str,
    what: Outcome,
    why: str,
    champion: int | None = None,
    champion_before: int | None = None,
    comparison: Compared | None = None,
) -> Promotion:
    """Return what build/promotion.json holds."""
    return Promotion(
        outcome=what,
        reason=why,
        verdict=decision.verdict,
        candidate=decision.candidate,
        champion=champion,
        champion_before=champion_before,
        comparison=comparison,
        registry=registry.shown_uri(uri),
        decision_sha256=digest_of(decision),
    )


def tags_of(chosen: Promotable, origin: Provenance, wish: Wish) -> dict[str, str]:
    """Return the tags that MLflow shows beside the version."""
    tags = {
        "verdict": chosen.decision.verdict + (" (forced)" if wish.force else ""),
        "candidate": chosen.name,
        "weights": chosen.shown.weights,
        "parameters": f"{chosen.shown.parameters:,}",
        "data version": origin.data_md5 or f"manifest {origin.manifest_sha256[:12]}",
        COMMIT_TAG: (origin.git_commit or "none") + (" with changes" if origin.git_changed else ""),
        "dvc.lock": origin.dvc_lock_sha256 or "none",
        registry.FINGERPRINT_TAG: chosen.fingerprint,
        registry.WEIGHTS_TAG: chosen.weights_sha256,
        **chosen.shown.tags,
    }
    if wish.force:
        tags["forced because"] = wish.reason
    return tags


def description_of(chosen: Promotable, origin: Provenance, comparison: Compared, wish: Wish) -> str:
    """Return the version's page in Markdown: the verdict, its rules, where it comes from."""
    rules = [
        f"| {rule.name} | {_short(rule.value)} | {_short(rule.bound)} | {_result(rule)} |"
        for rule in [*chosen.decision.rules, *comparison.rules]
    ]
    lines = [
        f"{chosen.decision.verdict} {chosen.name}: {chosen.shown.main} {chosen.shown.tags[chosen.shown.main]}.",
        chosen.decision.reason,
        *([f"Promoted by force: {wish.reason}"] if wish.force else []),
        "",
        "| rule | figure | bound | verdict |",
        "|---|---|---|---|",
        *rules,
        "",
        f"{origin.images:,} images, data version {origin.data_md5 or origin.manifest_sha256}, "
        f"commit {origin.git_commit or 'none'}, weights {chosen.shown.weights}.",
    ]
    return "\n".join(lines)[:5000]


def _result(rule: Rule) -> str:
    result = result_of(rule)
    return f"**{result}**" if result == FAILED else result


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rollback(params: PromoteParams, to: int | None, reason: str, dry_run: bool) -> str:
    """Make version `to` (by default the one before) champion again; return one sentence. The log keeps the reason.

    The version that is left is marked: only a forced promotion brings its weights back. Refusals are logged as well.
    """
    uri = registry.registry_uri()
    if not registry.exists(uri):
        raise UserError(f"There is no registry at {registry.shown_uri(uri)} yet: nothing to roll back.")
    opened = registry.open_registry(params.model, uri)
    with registry.readable_errors(uri), registry.locked(opened, params.lock_timeout):
        if not dry_run:
            journal.settle(opened)
        champion = registry.number(registry.find(opened, CHAMPION))
        target = to if to is not None else _one_before(opened, champion)
        base = Entry("rollback", "begun", reason, target, champion_before=champion, champion_after=champion)
        try:
            _check_target(opened, target, champion, journal.last_champion(opened))
        except UserError as error:
            if not dry_run:
                why = f"{error} (asked because: {reason})"[: journal.LONGEST_REASON]
                journal.append(opened, replace(base, outcome="refused", reason=why))
            raise
        assert target is not None
        left = f"version {champion}" if champion is not None else f"no champion ({journal.what_became_of_it(opened)})"
        if dry_run:
            return f"Would roll back from {left} to version {target}; nothing was changed."
        journal.carry_out(opened, base)
        return f"Rolled back from {left} to version {target}: {reason}"


def _one_before(opened: Registry, champion: int | None) -> int | None:
    champion = champion or journal.last_champion(opened)
    previous = registry.number(registry.find(opened, PREVIOUS))
    if previous is not None and previous != champion:
        return previous
    # A run killed between the two aliases leaves `previous` on the champion itself, and a version may have been deleted
    # in MLflow; the journal has the right order.
    earlier = [version for version in journal.champions(journal.entries(opened)) if version != champion]
    return next((version for version in reversed(earlier) if registry.find(opened, version) is not None), None)


def _check_target(opened: Registry, target: int | None, champion: int | None, last: int | None) -> None:
    if champion is None and last is None:
        raise UserError("There is no champion to roll back from.")
    if target is None and champion is None:
        raise UserError(
            f"There is no champion ({journal.what_became_of_it(opened)}) and none before it is left: "
            "promote a model anew (`dvc repro -f promote`)."
        )
    if target is None:
        raise UserError(f"Version {champion} is the only champion there ever was: nothing to roll back to.")
    if target == champion:
        raise UserError(f"Version {target} is champion already: `plumbline history` lists the others.")
    record = registry.find(opened, target)
    if record is None:
        raise UserError(f"There is no version {target}: `plumbline history` lists what there is.")
    registry.fetch(opened, record)


def history(params: PromoteParams) -> list[str]:
    """Return the versions and the log as lines of text."""
    uri = registry.registry_uri()
    if not registry.exists(uri):
        return [f"Nothing yet: there is no registry at {registry.shown_uri(uri)}."]
    opened = registry.open_registry(params.model, uri)
    with registry.readable_errors(uri):
        log, problems = journal.entries(opened), journal.broken_links(opened)
        champion = registry.number(registry.find(opened, CHAMPION))
        previous = registry.number(registry.find(opened, PREVIOUS))
        challenger = registry.number(registry.find(opened, CHALLENGER))
        records = opened.client.search_model_versions(f"name = '{opened.model}'")
        gone = journal.what_became_of_it(opened) if champion is None else ""
    lines = [f"Registry {registry.shown_uri(uri)}, model {opened.model}"]
    by_number = {int(record.version): record for record in records}
    once = set(journal.champions(log))
    roles = {challenger: "challenger", champion: "champion", previous: "previous"}
    for number in range(1, max([0, *by_number, *once]) + 1):
        record = by_number.get(number)
        if record is None:
            lines.append(f"  version {number} {_was(number, once)}: was deleted in MLflow")
            continue
        figure = next(
            (f"{tag.removeprefix('test ')} {record.tags[tag]}" for tag in MAIN_TAGS if tag in record.tags), ""
        )
        back = f"; rolled back: {record.tags[registry.WITHDRAWN_TAG]}" if registry.WITHDRAWN_TAG in record.tags else ""
        role = roles.get(number) or _was(number, once)
        lines.append(f"  version {number} {role}: {record.tags.get('candidate')}, {figure}{back}")
    lines += _log_lines(log)
    problems += [f"there is no champion: {gone}; `plumbline rollback --to VERSION` makes one"] if gone else []
    return lines + [f"WARNING: {problem}" for problem in problems]


def _was(version: int, once: set[int]) -> str:
    return "once champion" if version in once else "never champion"


def _log_lines(log: Sequence[Entry]) -> list[str]:
    """One line an action, with the numbers of all its entries: `1-2` has begun as 1 and ended as 2. None is skipped."""
    begun = {journal.digest(entry): entry.number for entry in log}
    settled = {entry.settles for entry in log}
    lines, due = [], 1
    seen = {entry.number for entry in log}
    for entry in log:
        gap = [number for number in range(due, entry.number) if number not in seen]
        lines += [f"{number:>7} is missing: it was taken out of the registry's log" for number in gap]
        due = entry.number + 1
        if journal.digest(entry) in settled:
            continue  # its outcome is shown
        first = begun.get(entry.settles)
        joint = "-" if first == entry.number - 1 else ","
        number = str(entry.number) if first is None else f"{first}{joint}{entry.number}"
        lines.append(f"{number:>7} {entry.at[:19].replace('T', ' ')} {journal.in_words(entry)}")
    return lines


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a force or a rollback without a reason is refused."""
    parser = argparse.ArgumentParser(prog="python -m stages.promote", description="Promote, roll back, look back.")
    commands = parser.add_subparsers(dest="command", metavar="{rollback,history}")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")
    parser.add_argument("--force", action="store_true", help="promote against the verdict; needs --reason")
    parser.add_argument("--here", action="store_true", help="promote although promote.place says no; needs --reason")
    parser.add_argument("--reason", default="", help="goes into the registry's log")
    back = commands.add_parser("rollback", help="make an earlier version champion again")
    back.add_argument("--to", type=int, metavar="VERSION", help="default: the champion before this one")
    back.add_argument("--reason", required=True)
    back.add_argument("--dry-run", action="store_true")
    told = commands.add_parser("history", help="versions and every action taken or refused")
    for command in (back, told):
        command.add_argument("--model", metavar="NAME", help="the registered model; default: promote.model")
    found = parser.parse_args(arguments)
    for option in ("force", "here"):
        if getattr(found, option, False) and not found.reason.strip():
            parser.error(f"--{option} needs --reason TEXT: it is kept in the registry's log")
    if found.command == "rollback" and not found.reason.strip():
        parser.error("--reason must say something: it is kept in the registry's log")
    return found


def load_network(folder: Path, features: Path) -> keras.Model | Path:
    """Assemble the candidate's whole network; of a compressed one return its file."""
    from plumbline.models.assemble import load_served

    return load_served(folder, features)


def read_pictures(paths: list[str], size: int | None, fit: Fit = "stretch") -> Any:
    """Yield the pictures of data/ (size, size, 3), uint8 RGB, in order; of their own size where it is None."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    return iter_rgb(load_section("data", DataParams), paths, (size, size) if size else None, fit=fit)


def compare(both: Pair, chosen: Chosen) -> AgainstChampion:
    """Compare two models' scores of the same images by the gate's rule: no worse overall nor in any slice."""
    from plumbline.evidence.rules import Gate, compare_with_champion
    from plumbline.evidence.slices import slicings

    shared = chosen.manifest.set_index("path").loc[sorted(both.old["path"])].reset_index()
    cuts, _ = slicings(shared)
    return compare_with_champion(both.old, both.new, chosen.classes, cuts, load_section("gate", Gate), chosen.task)
