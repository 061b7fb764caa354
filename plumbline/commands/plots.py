"""Let `dvc plots show` and `dvc plots diff` draw without a network: `plumbline plots`, once in a clone.

DVC's own page loads Vega from the internet. This writes a page that carries Vega itself (0.9 MB, taken from the package
vl-convert-python) to .dvc/plots.html, and names it in .dvc/config.local: for this clone, not for Git.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from plumbline.common.errors import UserError, run
from plumbline.common.files import write_text

PAGE = Path(".dvc/plots.html")


def page(vega: str) -> str:
    """Return DVC's page with `vega`, the script that draws, inside; its other placeholders are DVC's to fill."""
    from dvc_render.html import PAGE_HTML

    script = "<script>" + vega.replace("</script", "<\\/script") + "</script>"
    return str(PAGE_HTML.replace("{scripts}", script))


def main() -> None:
    """Write .dvc/plots.html and make it DVC's page in this clone."""
    try:
        import vl_convert
    except ImportError:
        raise UserError(
            f"vl-convert-python is not installed: {sys.executable} -m pip install vl-convert-python (84 MB). "
            "reports/leaderboard.html shows the same curves without it."
        ) from None
    if not PAGE.parent.is_dir():
        raise UserError(f"{PAGE.parent} is missing: run this in the project's top folder.")
    write_text(PAGE, page(vl_convert.javascript_bundle()))
    command = [sys.executable, "-m", "dvc", "config", "--local", "plots.html_template", PAGE.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"DVC refused its setting plots.html_template: {done.stderr.strip()}.")
    print(f"`dvc plots show` and `dvc plots diff` now draw without a network, by {PAGE}.")


if __name__ == "__main__":
    run(main)
