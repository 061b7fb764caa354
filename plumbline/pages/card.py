"""A candidate's page from plain data."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from plumbline.models.anatomy import WHOLE, Layer
from plumbline.pages.charts import Line, line_chart

CSS = Path(__file__).parent.parent / "page" / "leaderboard.css"


@dataclass(frozen=True)
class Picture:
    """A picture on the page: its path, what it is labelled, what was said, the probability of its label, a data URL."""

    path: str
    label: str
    predicted: str
    p_label: float
    source: str

    @classmethod
    def of(cls, row: Any, pixels: NDArray[np.uint8]) -> Picture:
        """Make it from a row of judged pictures (path, label, predicted, p_label) and pixels (S, S, 3)."""
        return cls(row.path, row.label, row.predicted, float(row.p_label), data_url(pixels))


def data_url(pixels: NDArray[np.uint8], side: int = 160) -> str:
    """RGB pixels (S, S, 3) as a JPEG of at most `side` pixels inside a data URL."""
    import cv2

    if pixels.shape[0] > side:
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise ValueError("OpenCV could not encode a picture as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def curves(history: pd.DataFrame) -> list[tuple[str, Markup]]:
    """Loss and accuracy by epoch, training and validation."""
    pairs = (("Loss", "loss", "val_loss", None), ("Accuracy", "accuracy", "val_accuracy", (0.0, 1.0)))
    epochs = history["epoch"].tolist()
    charts = []
    for title, train, validation, limits in pairs:
        lines = [
            Line("training", epochs, history[train].tolist(), "s1"),
            Line("validation", epochs, history[validation].tolist(), "s2"),
        ]
        last = history.iloc[-1]
        description = (
            f"{title} by epoch; at the end {last[train]:.3f} in training, {last[validation]:.3f} in validation"
        )
        charts.append((title, line_chart(lines, "epoch", title.lower(), description, y_range=limits)))
    return charts


def summary(layers: list[Layer]) -> dict[str, str]:
    """A few figures over all layers."""
    deepest = max((layer.receptive_field for layer in layers if layer.receptive_field != WHOLE), default=1.0)
    return {
        "layers": f"{len(layers):,}",
        "activations": f"{sum(layer.activation for layer in layers):,}",
        "receptive_field": f"{deepest:,.0f} x {deepest:,.0f}",
    }


def render(model: dict[str, Any], **content: Any) -> str:
    """Return the page; see the template for what it shows."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["field"] = lambda value: "whole picture" if math.isinf(value) else f"{value:.0f} x {value:.0f}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    return environment.get_template("card.html.j2").render(
        css=Markup(CSS.read_text(encoding="utf-8")),
        model=model,
        charts=curves(content.pop("history")),
        summary=summary(content["layers"]),
        **content,
    )
