"""The tasks there are, and which of them a data set or a stored model is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plumbline.common.errors import UserError
from plumbline.common.records import Record
from plumbline.imaging.labels import label_classes
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS
from plumbline.tasks.task import Task

TASKS: tuple[Task, ...] = (ONE_LABEL, SEVERAL_LABELS)
"""The first of these tasks that fits a data set's labels is taken."""


def task_of_labels(labels: Iterable[object]) -> Task:
    """Return the task that labels ask for: one label `a;b` anywhere makes every picture one of several labels."""
    kinds = {label_classes(label) for label in labels}
    return next(task for task in TASKS if task.fits(kinds))


def task_of(record: Record | Mapping[str, Any]) -> Task:
    """Return the task of a model.json, evaluation.json or serving.json that was read.

    Older files don't name a task: their pictures have one label each.
    """
    content = record.content() if isinstance(record, Record) else record
    said = {"several_labels": bool(content.get("several_labels", False))}
    if "task" in content:
        said = {"task": content["task"]}
    found = next((task for task in TASKS if task.record == said), None)
    if found is None:
        names = ", ".join(task.name for task in TASKS)
        raise UserError(f"the model's task is {content['task']!r}, which this version does not know: it has {names}.")
    return found
