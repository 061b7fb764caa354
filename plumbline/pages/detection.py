"""The page of all detectors: a table, curves, and photographs with their boxes, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from plumbline.evidence.context import ContextEvidence
from plumbline.evidence.context import in_words as context_in_words
from plumbline.evidence.detection import (
    SHOWN,
    DetectionEvidence,
    Drawn,
    Judged,
    Trained,
    shown_thresholds,
    worst_first,
)
from plumbline.evidence.detection_price import DetectionPrice
from plumbline.evidence.detection_price import rows as price_rows
from plumbline.evidence.detection_scores import curve, match, scenes_of
from plumbline.evidence.records import Decision, Figure
from plumbline.evidence.results import result_of
from plumbline.evidence.systems import SystemsEvidence, entry_of, in_words
from plumbline.pages.charts import Line, line_chart
from plumbline.pages.template import data_uri, read_asset, render_page
from plumbline.tasks.boxes import band

if TYPE_CHECKING:
    import pandas as pd

STYLES = ("s1", "s2", "s3", "s4", "s5", "s6")
SIDE = 480
Picture = Callable[[str], NDArray[np.uint8]]


@dataclass(frozen=True)
class Judgement:
    """Which system was chosen, what the gate said, what promotion did, and what the system reports of photographs.

    `forced` says why the gate was overruled, None where it was not. `heat` is Grad-CAM by photograph, on the canvas.
    """

    systems: SystemsEvidence
    context: ContextEvidence
    price: DetectionPrice
    decision: Decision
    promotion: str
    forced: str | None
    detections: pd.DataFrame
    heat: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and legend, (style, name) of each line."""

    title: str
    drawing: Markup
    key: list[tuple[str, str]]


@dataclass(frozen=True)
class Shown:
    """A photograph on the page, with boxes drawn over it."""

    path: str
    drawing: Markup
    words: str
    heat: str | None = None


def render(
    evidence: DetectionEvidence,
    judgement: Judgement,
    detectors: Mapping[str, Trained],
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    picture: Picture,
) -> str:
    """Return the whole page as HTML that loads nothing else; tables are as in evidence.detection.evaluate.

    `picture` returns the pixels (H, W, 3) of a path. Photographs shown are those of the test side, as the system chosen
    on validation sees them.
    """
    names = sorted(evidence.detectors, key=lambda name: -_value(evidence.detectors[name].splits["validation"].map50))
    test = photographs[photographs["split"] == "test"]
    systems = judgement.systems
    best = entry_of(evidence, systems)
    thresholds = shown_thresholds(evidence, best, judgement.detections, photographs, boxes)
    judged = worst_first(test, boxes, judgement.detections, thresholds)
    return render_page(
        "detection.html.j2",
        "detection.css",
        filters={"number": number, "percent": percent, "result": result_of, "figure": figure_of},
        evidence=evidence,
        systems=systems,
        system=in_words(systems),
        decision=judgement.decision,
        promotion=judgement.promotion,
        forced=judgement.forced,
        names=names,
        best=best,
        thresholds=thresholds,
        curves=precision_recall(names, detectors, test, boxes, evidence.classes),
        learning=[(name, learning_chart(detectors[name])) for name in names],
        shown=[shown(one, picture(one.path), judgement.heat.get(one.path)) for one in judged[:SHOWN]],
        context=judgement.context,
        context_words=context_in_words(judgement.context),
        price=judgement.price,
        price_rows=price_rows(judgement.price),
        in_all=len(judged),
        with_mistakes=sum(one.mistakes > 0 for one in judged),
        script=Markup(read_asset("leaderboard.js")),
    )


def precision_recall(
    names: list[str],
    detectors: Mapping[str, Trained],
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    classes: tuple[str, ...],
) -> list[Chart]:
    """Precision against recall at IoU 0.5, a chart for each class with a line for each of the first few detectors."""
    charts = []
    for label in classes:
        lines = []
        for place, name in enumerate(names[: len(STYLES)]):
            scenes = list(scenes_of(photographs, boxes, detectors[name].detections, label))
            precision, recall, _ = curve(match(scenes))
            if len(precision) and np.isfinite(recall).all():
                lines.append(Line(name, recall.tolist(), precision.tolist(), STYLES[place]))
        if lines:
            last = ", ".join(f"{line.name} finds {line.x[-1]:.0%} in the end" for line in lines)
            drawing = line_chart(lines, "recall", "precision", f"{label}: {last}", (0.0, 1.0), (0.0, 1.0))
            charts.append(Chart(f"Precision and recall of {label}", drawing, [(one.style, one.name) for one in lines]))
    return charts


def learning_chart(detector: Trained) -> Chart:
    """Losses by epoch, in training and on validation: the whole, or where heads have losses of their own, each."""
    table = detector.history.dropna(axis=1, how="all")
    lines = [
        Line(name.removeprefix("val_") + (" (validation)" if name.startswith("val_") else ""), x, y, style)
        for name, style in zip([one for one in table.columns if one != "epoch"], STYLES, strict=False)
        for x, y in [(table["epoch"].tolist(), table[name].tolist())]
    ]
    drawing = line_chart(lines, "epoch", "loss", f"losses over {len(table)} epochs")
    return Chart(detector.record.detector, drawing, [(line.style, line.name) for line in lines])


def shown(judged: Judged, pixels: NDArray[np.uint8], heat: NDArray[np.float32] | None = None) -> Shown:
    """Draw a photograph's boxes over it: right ones green, wrong ones red, missed ones dashed.

    `heat` (h, w) lies on the square canvas that the photograph is laid in.
    """
    height, width = pixels.shape[:2]
    factor = SIDE / max(height, width)
    across, down = width * factor, height * factor
    parts = [f'<image href="{data_uri(pixels, SIDE)}" width="{across:.0f}" height="{down:.0f}"/>']
    parts += [_drawn(one, across, down) for one in sorted(judged.drawn, key=lambda one: one.what)]
    counts = {what: sum(one.what == what for one in judged.drawn) for what in ("right", "wrong", "missed")}
    words = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing there, nothing found"
    content = "".join(parts)
    drawing = Markup(
        f'<svg class="scene" viewBox="0 0 {across:.0f} {down:.0f}" role="img" '
        f'aria-label="{escape(judged.path)}: {escape(words)}">{content}</svg>'
    )
    return Shown(judged.path, drawing, words, None if heat is None else data_uri(heated(pixels, heat), SIDE))


def heated(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a photograph (H, W, 3), grey but for where `heat` is: from yellow to red."""
    import cv2

    height, width = pixels.shape[:2]
    side = max(height, width)
    canvas = cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    strength = np.clip(canvas[top : top + height, left : left + width, None], 0, 1)
    grey = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    warm = np.concatenate([np.full_like(strength, 255), 220 * (1 - strength), np.zeros_like(strength)], axis=2)
    return np.asarray((1 - 0.6 * strength) * grey + 0.6 * strength * warm).round().astype(np.uint8)


def _drawn(one: Drawn, across: float, down: float) -> str:
    left, top, right, bottom = one.box
    x, y, wide, high = left * across, top * down, (right - left) * across, (bottom - top) * down
    said = one.label if one.score is None else f"{one.label} {one.score:.2f}"
    if one.overlap is not None:
        said += f", IoU {one.overlap:.2f} ({band(one.overlap)})"
    text_y = y - 3 if y > 12 else y + high + 10
    title = f"<title>{escape(one.what)}: {escape(said)}</title>"
    label = "" if one.overlap is None else f"{one.overlap:.2f}"
    return (
        f'<g class="{one.what}">{title}<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'
        f'<text x="{x:.1f}" y="{text_y:.1f}">{escape(one.label)} {label}</text></g>'
    )


def number(figure: Figure | float | None, digits: int = 3) -> str:
    """A figure's value, or that there is none."""
    value = figure.value if isinstance(figure, Figure) else figure
    return "none to find" if value is None else f"{value:.{digits}f}"


def figure_of(value: float | str | None) -> str:
    """A rule's figure or bound."""
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def percent(value: float | None) -> str:
    """A share in percent."""
    return "none to find" if value is None else f"{100 * value:.0f}%"


def _value(figure: Figure | None) -> float:
    return -1.0 if figure is None else figure.value
