"""params.yaml, section `drift`, and the names of the sites."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from plumbline.common.errors import UserError
from plumbline.common.params import PARAMS, Section, load_sections

WORKSPACE = "evidently"  # Evidently's folder beside the sites' under drift.state
INDEX = "index.html"  # the page beside the sites' folders under reports/drift
_TAKEN = {WORKSPACE, INDEX}
_LONGEST = 100  # bytes; file systems allow 255, and longer names are made from it


def wrong_name(site: object) -> str | None:
    """Return what is wrong with a site's name, None for a good one.

    It names folders (incoming/SITE, drift/SITE, reports/drift/SITE), so it must be a single part of a path.
    """
    if not isinstance(site, str):
        return f"is read as {type(site).__name__}, not as text: put it in quotes"
    if not site.strip():
        return "is empty"
    if "/" in site or "\\" in site or "::" in site:
        return "holds / or \\ or ::, which lead to other folders"
    if "{{" in site:
        return "holds {{, which Prefect takes for something to fill in"
    if site != site.strip() or site.startswith("."):
        return "begins or ends with a space, or begins with a dot"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in site):
        return "holds a line break or another character that can't be seen"
    if len(site.encode()) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    return "is a name that the project uses itself" if site.casefold() in _TAKEN else None


def checked_site(site: object) -> str:
    """Return a site's name; UserError where it can't be one. Every site's name is checked here."""
    if why := wrong_name(site):
        raise UserError(f"{site!r} can't be a site's name, since it {why}: use the plain name of its folder.")
    return str(site)


def _checked_parameter(site: str) -> str:
    if why := wrong_name(site):
        raise ValueError(f"{site!r} can't be a site's name, since it {why}")
    return site


# A flow's parameter: Prefect validates it before the flow begins, without retries.
SiteName = Annotated[str, AfterValidator(_checked_parameter)]


def _checked_keys(sources: dict[str, str]) -> dict[str, str]:
    for site in sources:
        _checked_parameter(site)
    return sources


class DriftParams(Section):
    """Where new images come from, how many images a verdict needs, and how often it may be wrong.

    `alpha` is the chance that a site with no drift is ever called DRIFT in `horizon` windows: each is judged at
    alpha / horizon, corrected for its tests. `embedding` is read at promotion (plumbline.registry.eyes): the network
    whose embeddings are compared, or `champion` for the champion's own.
    """

    embedding: str = "mobilenet_v2"
    source: str = "incoming"
    sources: Annotated[dict[str, str], AfterValidator(_checked_keys)] = Field(default={})
    state: Path = Path("drift")
    minimum_images: int = Field(default=50, ge=10)
    minimum_groups: int = Field(default=20, ge=5)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    horizon: int = Field(default=20, ge=1)
    permutations: int = Field(default=9999, ge=99)
    most_images: int = Field(default=4_000, ge=100)
    copy_distance: int = Field(default=2, ge=0, le=16)
    repeated_share: float = Field(default=0.3, gt=0, le=1)
    quarantined_share: float = Field(default=0.1, gt=0, le=1)
    label_first: int = Field(default=40, ge=0)
    label_random: int = Field(default=20, ge=0)
    risk_tolerance: float = Field(default=0.05, ge=0, lt=1)
    shown: int = Field(default=8, ge=0)
    lock_timeout: float = Field(default=600, ge=0)
    keep_windows: int | None = Field(default=200, ge=1)
    keep_pages: int | None = Field(default=60, ge=0)
    keep_snapshots: int | None = Field(default=200, ge=0)
    most_pages: int | None = Field(default=1_000, ge=1)
    most_snapshots: int | None = Field(default=400, ge=1)
    seed: int = 0

    def source_of(self, site: str) -> str:
        """Return the folder or fsspec URL that holds a site's images."""
        return self.sources.get(checked_site(site)) or f"{self.source.rstrip('/')}/{site}"


class _Listed(Section):
    """An entry of `sites`; flows.sites reads when it is judged."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def site_names(path: Path = PARAMS) -> list[str]:
    """Return the names under `sites` in params.yaml; UserError where one can't be a site's name."""
    names = list(load_sections("sites", _Listed, path, optional=True))
    same: dict[str, str] = {}
    for name in names:
        try:
            key = unicodedata.normalize("NFC", checked_site(name)).casefold()
        except UserError as error:
            raise UserError(f"{path}, sites: {error}") from None
        if same.setdefault(key, name) != name:
            raise UserError(
                f"{path}, sites: {same[key]} and {name} differ only in case or Unicode form: rename one of them."
            )
    return names
