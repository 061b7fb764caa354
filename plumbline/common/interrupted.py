"""What a kill leaves in a workspace: a dvc.lock that is cut off, or an unfinished intake. Every stage looks for both.

DVC writes dvc.lock in place, so a kill at that moment leaves only its beginning: usually invalid YAML, and DVC stops
with an error; but cut at the end of a line it looks like a lock of fewer stages, and DVC runs all the others again.
Every stage that DVC starts keeps a copy of the file, so that `mend` can restore it. A project may have several
pipelines, each with its dvc.lock in a folder of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOCK = "dvc.lock"
MEND = "plumbline mend"
COPY = "plumbline-dvc.lock"
# While intake changes data/: its journal, and the files still to be moved (flows/switch.py).
SWITCH = Path(".dvc/tmp/plumbline-switch.json")
ADDED = Path(".dvc/tmp/plumbline-added")
PATIENCE = 10.0  # seconds for another process, on a busy machine, to finish writing dvc.lock or changing data/
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)


def project_of(folder: Path = Path()) -> Path | None:
    """Return the DVC project that a pipeline's folder lies in: the nearest one above with `.dvc`; None without any."""
    whole = folder.resolve()
    return next((above for above in (whole, *whole.parents) if (above / ".dvc").is_dir()), None)


def scratch(root: Path) -> Path:
    """Return where what belongs to the pipeline at `root` is noted: in its project's .dvc/tmp, or a folder in there."""
    whole, project = root.resolve(), project_of(root) or root.resolve()
    own = project / ".dvc" / "tmp"
    return own if whole == project else own / "plumbline-pipelines" / whole.relative_to(project)


def copy_of(root: Path) -> Path:
    """Return where the copy of the pipeline's dvc.lock is."""
    return scratch(root) / COPY


def at_start(root: Path) -> str | None:
    """At a stage's start: copy dvc.lock if it is whole; return why a stage that DVC runs must not begin, else None.

    A stage started by hand may begin; it prints a warning.
    """
    by_dvc, by_hand = "DVC_STAGE" in os.environ, Path(sys.argv[0]).parent.name in ("stages", "monitoring")
    if not (by_dvc or by_hand) or project_of(root) is None:
        return None
    end = time.monotonic() + PATIENCE
    while fault := switch_fault(root) or lock_fault(root):
        if time.monotonic() > end or not _just_touched(root):
            break
        time.sleep(0.05)
    if fault and not by_dvc:
        print(f"warning: {fault}", file=sys.stderr)
    elif not fault and by_dvc:
        try:
            keep(root)
        except OSError as error:
            print(f"warning: no copy of {LOCK} could be kept for `{MEND}`: {error}.", file=sys.stderr)
    return fault if by_dvc else None


def keep(root: Path) -> None:
    """Copy dvc.lock for `mend` if it is whole; remove the copy if dvc.lock was removed."""
    text = read(root / LOCK)
    if text is None:
        copy_of(root).unlink(missing_ok=True)
    elif text != read(copy_of(root)) and not lock_fault(root):
        # Not by files.write_text, which imports errors, which imports this; but atomically as well.
        copy = copy_of(root)
        temporary = copy.with_suffix(f".{os.getpid()}")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, copy)


def lock_fault(root: Path) -> str | None:
    """Return a sentence on what is wrong with dvc.lock and what to do; None if it is right or missing."""
    path = root / LOCK
    text = read(path)
    kept = read(copy_of(root))
    if text is None or text == kept:
        return None
    if found := CONFLICT.search(text):
        line = text.count("\n", 0, found.start()) + 1
        return (
            f"{path} has Git's conflict markers (line {line}): take one side whole (git checkout --ours {LOCK}, or "
            "--theirs), then `dvc repro`."
        )
    stages = _stages(text)
    if stages is None:
        return f"{path} was torn by a kill: `{MEND}` puts it back, then `dvc repro`."
    lost = _lost(root, text, stages, _stages(kept) or {} if kept else {})
    if not lost:
        return None
    return (
        f"{path} lacks stages that it had ({', '.join(lost)}), as a kill leaves it: `{MEND}` puts it back, "
        f"then `dvc repro`; if you took them out yourself, `{MEND} --as-it-is`."
    )


def _lost(root: Path, text: str, now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The stages missing from a lock that is the beginning of what it was, if dvc.yaml still has them.

    The last of those that are there may be cut short, too. A version that Git knows was not cut: somebody went back to
    it.
    """
    names = list(now)
    lost = list(before)[len(names) :]
    if list(before)[: len(names)] != names:
        return []
    partly = _outs_cut(now[names[-1]], before[names[-1]]) if names else None
    if not lost and partly is None:
        return []
    import yaml

    pipeline = (yaml.safe_load(read(root / "dvc.yaml") or "") or {}).get("stages", {})
    lost = [name for name in lost if name.partition("@")[0] in pipeline]
    if partly is not None and partly < _outs_of(pipeline.get(names[-1].partition("@")[0])):
        lost.insert(0, names[-1])
    version = (ask_git(root, "hash-object", "--stdin", text=text) or "none").strip() if lost else "none"
    return lost if ask_git(root, "cat-file", "-e", version) is None else []


def _outs_cut(stage: dict[str, Any], before: dict[str, Any]) -> int | None:
    """How many outs of a lock entry are whole where it was cut within them, its last part; None where it was not."""
    outs, earlier = stage.get("outs") or [], before.get("outs") or []
    if [out["path"] for out in outs] != [out["path"] for out in earlier[: len(outs)]]:
        return None
    whole = sum(not set(out) < set(other) for out, other in zip(outs, earlier, strict=False))
    return whole if whole < len(earlier) else None


def _outs_of(stage: dict[str, Any] | None) -> int:
    """How many outs a stage of dvc.yaml declares."""
    body = (stage or {}).get("do") or stage or {}
    return sum(len(body.get(kind) or []) for kind in ("outs", "metrics", "plots"))


def stage_names(text: str) -> list[str] | None:
    """The names of the stages in a dvc.lock, in its order; None where it was cut off and can't be read."""
    stages = _stages(text)
    return None if stages is None else list(stages)


def _stages(text: str) -> dict[str, Any] | None:
    import yaml

    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError):
        return None
    stages = value.get("stages") if isinstance(value, dict) else None
    if not text.endswith("\n") or not isinstance(stages, dict) or not all(map(_is_entry, stages.values())):
        return None
    return stages


def _is_entry(stage: Any) -> bool:
    if not isinstance(stage, dict) or "cmd" not in stage:
        return False
    entries = [*(stage.get("deps") or []), *(stage.get("outs") or [])]
    return all(isinstance(entry, dict) and entry.get("path") for entry in entries)


def switch_fault(root: Path) -> str | None:
    """Return a sentence on an intake that was killed before all its pictures were in place, else None."""
    if not (root / SWITCH).exists() or not any(path.is_file() for path in (root / ADDED).rglob("*")):
        return None
    return f"an intake was killed while it changed the data of {root}: `{MEND}` finishes it, then `dvc repro`."


def _just_touched(root: Path) -> bool:
    """Was either file written a moment ago, so that somebody may still be writing it?"""
    written = [path.stat().st_mtime for path in (root / LOCK, root / SWITCH) if path.exists()]
    return bool(written) and abs(time.time() - max(written)) < PATIENCE  # the clock may have been set back


def read(path: Path) -> str | None:
    """A text file's content, with replacement characters for invalid UTF-8; None where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def ask_git(root: Path, *arguments: str, text: str | None = None) -> str | None:
    """What Git prints; None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
