"""One monitoring deployment for each site: plumbline flows sites writes them into prefect.yaml.

Prefect reads a static file; the sites are listed in params.yaml only, and a test compares the two.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import Field, field_validator

from monitoring.settings import site_names
from plumbline.common.errors import run
from plumbline.common.files import text_digest, write_text
from plumbline.common.params import PARAMS, Section, load_sections

PREFECT = Path("prefect.yaml")
REFUSED = re.compile("[/%&<>]")  # in names, by Prefect
MARK = "sites writes what is below this line.\n"


class Site(Section):
    """params.yaml, section `sites.NAME`: when the site's new images are judged, on its own clock."""

    timezone: str
    cron: str = Field("0 * * * *", pattern=r"^\S+( \S+){4}$")

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone: write it as Europe/Berlin") from None
        return name


def deployments(sites: dict[str, Site]) -> str:
    """Return the entries for prefect.yaml, names in quotes: YAML reads a bare NO, 007 or `Hall #3` otherwise."""
    return "".join(
        f"""  - name: {quoted(deployment_name(name))}
    description: {quoted(f"New images of {name}, judged on its own clock.")}
    entrypoint: flows.monitoring.monitor
    parameters: {{site: {quoted(name)}}}
    work_pool: *pool
    concurrency_limit: {{limit: 1, collision_strategy: CANCEL_NEW}}
    schedules:
      - {{cron: {quoted(site.cron)}, timezone: {quoted(site.timezone)}, slug: hourly}}
"""
        for name, site in sites.items()
    )


def deployment_name(site: str) -> str:
    """Return the name of a site's deployment; with signs that Prefect refuses, a digest keeps it apart from others."""
    plain = REFUSED.sub("-", site)
    return f"monitor-{plain}" if plain == site else f"monitor-{plain}-{text_digest(site)[:8]}"


def quoted(text: str) -> str:
    """Return a text as YAML reads it back, whatever is in it."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf")).strip()


def rewritten(text: str, sites: dict[str, Site]) -> str:
    """Return prefect.yaml's text with its monitoring deployments made anew."""
    head, mark, _ = text.partition(MARK)
    return head + mark + deployments(sites)


def main() -> None:
    """Rewrite prefect.yaml."""
    site_names()  # refuses what can't be a site's name
    write_text(PREFECT, rewritten(PREFECT.read_text(encoding="utf-8"), load_sections("sites", Site, PARAMS)))


if __name__ == "__main__":
    run(main)
