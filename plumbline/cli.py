"""The command `plumbline`. Each subcommand runs a module as `python -m` would, with that module's exit code.

This file names modules of monitoring and flows without importing them.
"""

from __future__ import annotations

import runpy
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from plumbline.common import artefacts

app = typer.Typer(
    name="plumbline",
    help="A pipeline for image classifiers that have to be trusted. Run it in the project's top folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
flows = typer.Typer(help="Prefect: the same stages on a schedule, on more machines.", no_args_is_help=True)
app.add_typer(flows, name="flows", rich_help_panel=None)


class _JudgesSites(TyperGroup):
    """`plumbline drift SITE` is `plumbline drift judge SITE`: needed in full for a site called as a command is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Typer's own class of contexts has no public name
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["judge", *args]
        return super().parse_args(ctx, args)


drift = typer.Typer(cls=_JudgesSites, help="Judge sites' new images (`plumbline drift SITE`), or accept a window.")
app.add_typer(drift, name="drift", rich_help_panel=None)


def _version() -> str:
    """The version of the code that runs: of the project it stands in, else of the installed package."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version("plumbline")


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"plumbline {_version()}")
        raise typer.Exit


@app.callback()
def plumbline(
    shown: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A pipeline for image classifiers that have to be trusted. Run it in the project's top folder."""


Model = Annotated[str | None, typer.Option(metavar="NAME", help="The registered model; default: promote.model.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the registry's log.")]


def run_module(module: str, *arguments: object) -> None:
    """Run `module` as `python -m` would, with `arguments`; ends with its exit code."""
    sys.path.insert(0, str(Path.cwd()))  # `python -m` does so; a script in .venv/bin doesn't
    sys.argv = [module, *map(str, arguments)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _option(name: str, value: object) -> list[object]:
    return [] if value is None else [name, value]


@app.command()
def summary() -> None:
    """How the last run ended, and which pages to open."""
    run_module("plumbline.commands.summary")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The folder of pictures.")] = Path("data"),
    violation: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class that must not be missed; none: no class is one.")
    ] = None,
    published_split: Annotated[
        str | None, typer.Option(metavar="keep|merge", help="What to do where the folders are train and test.")
    ] = None,
) -> None:
    """Fit params.yaml to your own photographs."""
    options = [*_option("--violation", violation), *_option("--published-split", published_split)]
    run_module("plumbline.commands.init", path, *options)


@app.command()
def audit(
    folders: Annotated[list[Path], typer.Argument(help="Two or more: train, (validation,) test.")],
    page: Annotated[Path, typer.Option(help="Where to write the certificate.")] = artefacts.AUDIT_PAGE.path,
    json: Annotated[Path | None, typer.Option(help="Where to write its figures; default: beside the page.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Where to write every pair (.csv, .parquet).")] = None,
    no_embeddings: Annotated[bool, typer.Option("--no-embeddings", help="Look at no embedding neighbours.")] = False,
) -> None:
    """Does a published split leak?

    Exit code 0 clean, 1 leaks, 2 bad input.
    """
    flags = ["--no-embeddings"] if no_embeddings else []
    run_module(
        "plumbline.commands.audit",
        *folders,
        "--page",
        page,
        *_option("--json", json),
        *_option("--pairs", pairs),
        *flags,
    )


@app.command()
def tune(
    candidate: Annotated[str, typer.Argument(help="An entry of `candidates` in params.yaml.")],
    trials: Annotated[int | None, typer.Option(help="How many more; default: tune.trials.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the winning values into params.yaml.")] = False,
) -> None:
    """Search a candidate's settings on validation pictures."""
    flags = ["--write"] if write else []
    run_module("plumbline.commands.tune", candidate, *_option("--trials", trials), *flags)


@app.command()
def similar(
    image: Annotated[Path | None, typer.Argument(help="A picture file.")] = None,
    by: Annotated[str | None, typer.Option(help="A backbone or triplet candidate; default: group.embedding.")] = None,
    count: Annotated[int, typer.Option(help="How many to print.")] = 10,
    verify: Annotated[
        bool, typer.Option("--verify", help="Judge pairs of test pictures: of one group, or not?")
    ] = False,
) -> None:
    """The known pictures most like another, or how well likeness tells who belongs together."""
    given = [] if image is None else [image]
    flags = ["--verify"] if verify else []
    run_module("plumbline.commands.similar", *given, *_option("--by", by), "--count", count, *flags)


@app.command()
def export(
    format: Annotated[str, typer.Option(metavar="saved-model|tflite|tflite-int8", help="What is written.")],
    what: Annotated[
        str | None, typer.Argument(help="A version's number, or a candidate's folder; default: the champion.")
    ] = None,
    to: Annotated[Path, typer.Option(help="The folder that it is written into.")] = artefacts.EXPORTS.path,
) -> None:
    """Write the champion as SavedModel or TFLite, checked against it on its own pictures."""
    given = [] if what is None else [what]
    run_module("plumbline.commands.export", *given, "--format", format, "--to", to)


@app.command()
def plots() -> None:
    """Let `dvc plots show` draw without a network."""
    run_module("plumbline.commands.plots")


@app.command()
def history(model: Model = None) -> None:
    """Versions, promotions, refusals and rollbacks."""
    run_module("stages.promote", "history", *_option("--model", model))


@app.command()
def promote(
    here: Annotated[bool, typer.Option("--here", help="Promote although promote.place forbids it here.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Promote whatever gate and comparison say.")] = False,
    reason: Annotated[str, typer.Option(help="Why; needed with both, and kept in the registry's log.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")] = False,
) -> None:
    """Register what the gate chose and make it champion, as `dvc repro` does, or against its refusal."""
    asked = {"--here": here, "--force": force, "--dry-run": dry_run}
    flags = [name for name, wanted in asked.items() if wanted]
    run_module("stages.promote", *flags, *(["--reason", reason] if reason else []))


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[int | None, typer.Option(metavar="VERSION", help="Default: the champion before this one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")] = False,
    model: Model = None,
) -> None:
    """Make an earlier version champion again."""
    flags = ["--dry-run"] if dry_run else []
    options = [*_option("--to", to), *_option("--model", model)]
    run_module("stages.promote", "rollback", "--reason", reason, *options, *flags)


@drift.command()
def judge(
    site: Annotated[list[str] | None, typer.Argument(help="A folder under drift.source in params.yaml.")] = None,
    every_site: Annotated[bool, typer.Option("--every-site", help="Those listed under `sites`.")] = False,
) -> None:
    """Judge a site's new images.

    Exit code 0 OK or WATCH, 1 DRIFT, 2 not enough images, 3 error.
    """
    run_module("monitoring.drift", *(site or []), *(["--every-site"] if every_site else []))


@drift.command()
def accept(
    site: Annotated[str, typer.Argument(help="A site that was judged.")],
    window: Annotated[str, typer.Argument(help="One of its windows, as in 0003.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="It is not fine after all.")] = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept and shown.")] = "",
) -> None:
    """Say that a judged window is fine: its pictures join the reference of the site's later verdicts.

    Exit code 0, or 3 where nothing was changed.
    """
    flags = ["--revoke"] if revoke else []
    options = ["--reason", reason] if reason else []
    run_module("monitoring.accept", *flags, *options, "--", site, window)


@app.command()
def intake(
    batch: Annotated[Path, typer.Argument(help="A folder of labelled pictures, or Label Studio's JSON export.")],
    images: Annotated[Path | None, typer.Option(help="For an export: the folder its pictures are in.")] = None,
    no_training: Annotated[bool, typer.Option("--no-training", help="Don't ask for training.")] = False,
    same_as: Annotated[
        list[str] | None, typer.Option("--as", metavar="THEIRS=OURS", help="Their class is this one of data/.")
    ] = None,
    new_class: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A class that data/ does not have yet.")
    ] = None,
    label_tag: Annotated[str | None, typer.Option(help="For an export with several: the choices that label.")] = None,
) -> None:
    """Add labelled pictures to data/ as a new version: a Git commit, its pictures pushed to DVC's remote."""
    flags = ["--no-training"] if no_training else []
    flags += [word for one in same_as or [] for word in ("--as", one)]
    flags += [word for one in new_class or [] for word in ("--new-class", one)]
    run_module("flows.intake", batch, *_option("--images", images), *_option("--label-tag", label_tag), *flags)


@app.command("serve")
def serve_champion(
    host: Annotated[str | None, typer.Option(help="Where to listen; default: serving.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: serving.port; 0: any that is free.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: serving.workers.")] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="Let anybody ask, from other machines too.")] = False,
) -> None:
    """Serve the champion: a page for people, an API, batches."""
    options = [*_option("--host", host), *_option("--port", port), *_option("--workers", workers)]
    run_module("serving.supervisor", *options, *(["--open"] if open_to_all else []))


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="The pictures; folders in it are looked through, too.")],
    output: Annotated[Path, typer.Argument(help="A .parquet file, a row for each picture.")],
) -> None:
    """Have the champion answer a folder of pictures; a killed run goes on where it stopped."""
    run_module("serving.predict", folder, output)


@app.command()
def compare(
    challenger: Annotated[int | None, typer.Option(metavar="VERSION", help="Default: the alias challenger.")] = None,
    alpha: Annotated[float, typer.Option(help="Chance of ever settling on the wrong one.")] = 0.05,
    json: Annotated[Path | None, typer.Option(help="Where to write the verdict, for other programs.")] = None,
) -> None:
    """Champion against challenger on labelled answers. Exit code 0 challenger, 1 champion, 2 not settled, 3 error."""
    options = [*_option("--challenger", challenger), *_option("--json", json)]
    run_module("serving.compare", "--alpha", alpha, *options)


@app.command()
def mend(
    as_it_is: Annotated[bool, typer.Option("--as-it-is", help="A dvc.lock that lacks stages it had is meant.")] = False,
) -> None:
    """Put right what a kill left behind.

    A torn dvc.lock is restored, a half-done intake finished.
    """
    run_module("flows.mend", *(["--as-it-is"] if as_it_is else []))


@flows.command()
def serve(port: Annotated[int, typer.Option(help="The server's; the report pages take the next.")] = 4200) -> None:
    """Server, UI, a worker and the reports, here."""
    run_module("flows.serve", "--port", port)


@flows.command()
def training(
    side_by_side: Annotated[int, typer.Option(help="Stages at a time.")] = 2,
    retries: Annotated[int, typer.Option(help="Further tries for failures that can pass.")] = 3,
    elsewhere: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Stages for other machines.")] = None,
) -> None:
    """One run of every stage as Prefect tasks."""
    patterns = [word for pattern in elsewhere or [] for word in ("--elsewhere", pattern)]
    run_module("flows.training", "--side-by-side", side_by_side, "--retries", retries, *patterns)


@flows.command()
def monitor(site: str) -> None:
    """Judge a site's new images as the deployment does.

    With its artifact, event and message.
    """
    run_module("flows.monitoring", site)


@flows.command()
def sites() -> None:
    """Write the sites' deployments into prefect.yaml."""
    run_module("flows.sites")


@flows.command()
def setup() -> None:
    """Work pools on a Prefect server, once."""
    run_module("flows.setup")


if __name__ == "__main__":
    app()
