"""Prefect runs what dvc.yaml describes: training, intake of labelled batches, monitoring; on a schedule, anywhere."""

import os
import sys
from types import TracebackType

from plumbline.common.errors import prepare_environment
from plumbline.common.users import name_this_user

# Before anything here starts a process or a connection. A deployed run begins here too: its worker may have neither.
prepare_environment()
name_this_user()
# Prefect reads its settings when it is imported, which is later. Its own heartbeat, every 180 s, would let flows.keeper
# declare a healthy run of `python -m flows.training` dead.
_OURS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
for _name, _value in _OURS.items():
    os.environ.setdefault(_name, _value)


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one sentence what is wrong with Prefect's settings: they are read on import, before any command runs."""
    if not str(getattr(error, "title", "")).endswith("Settings") or not kind.__module__.startswith("pydantic"):
        return sys.__excepthook__(kind, error, trace)
    wrong = "; ".join(" ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors())  # type: ignore[attr-defined]
    names = ", ".join(sorted(n for n, v in os.environ.items() if n.startswith("PREFECT_") and v != _OURS.get(n)))
    where = f"{names} or " if names else ""
    print(f"error: Prefect can't read its settings ({wrong}): correct or unset {where}its profile.", file=sys.stderr)


sys.excepthook = _explain
