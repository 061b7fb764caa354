"""The page of an ablation: every subset of a hybrid's networks, on pictures as they are and disturbed."""

from __future__ import annotations

from typing import Any

import numpy as np

from plumbline.evidence.ablation import CONDITIONS
from plumbline.pages.template import render_page


def page(result: dict[str, Any]) -> str:
    """Return build/ablations/CANDIDATE.json as a page of its own."""
    return render_page(
        "ablation.html.j2", result=result, conditions=CONDITIONS, mean=lambda values: f"{np.mean(values):.3f}"
    )
