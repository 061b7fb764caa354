"""params.yaml, section `drift`, and the names of the sites."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field

from plumbline.common.params import PARAMS, Section, load_sections


class DriftParams(Section):
    """Where new images come from, how much evidence a verdict needs, and how often it may be wrong.

    `alpha` is the chance that a site with no drift is ever called DRIFT in `horizon` windows: each is judged at
    alpha / horizon, Holm-corrected over its tests.
    """

    source: str = "incoming"
    sources: dict[str, str] = Field(default={})
    state: Path = Path("drift")
    minimum_images: int = Field(default=50, ge=10)
    minimum_groups: int = Field(default=20, ge=5)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    horizon: int = Field(default=20, ge=1)
    permutations: int = Field(default=9999, ge=99)
    most_images: int = Field(default=20_000, ge=100)
    copy_distance: int = Field(default=2, ge=0, le=16)
    repeated_share: float = Field(default=0.3, gt=0, le=1)
    quarantined_share: float = Field(default=0.1, gt=0, le=1)
    label_first: int = Field(default=40, ge=0)
    shown: int = Field(default=8, ge=0)
    seed: int = 0

    def source_of(self, site: str) -> str:
        """Return the folder or fsspec URL that holds a site's images."""
        return self.sources.get(site) or f"{self.source.rstrip('/')}/{site}"


class _Listed(Section):
    """An entry of `sites`; when it is judged is the concern of flows.sites."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def site_names(path: Path = PARAMS) -> list[str]:
    """Return the names under `sites` in params.yaml."""
    return list(load_sections("sites", _Listed, path, optional=True))
