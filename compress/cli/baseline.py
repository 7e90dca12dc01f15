"""`edge-compress baseline`: what `check` compares with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from compress.workflow.baseline import Baselines

PROJECT = click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    metavar="DIR",
    help="The repository's folder; baselines lie in its benchmarks/baselines. Default: here.",
)
STORE = click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where baseline artifacts lie. Default: EDGE_COMPRESS_STORE, or .edge-compress/baselines in the project.",
)


@click.group("baseline")
def command() -> None:
    """Save, list or restore what `edge-compress check` compares with."""


@command.command("save")
@click.argument("name")
@click.argument("sources", nargs=-1, metavar="[OUT ...]", type=click.Path(path_type=Path))
@click.option("--target", "only", multiple=True, metavar="NAME", help="Only this target; repeatable.")
@PROJECT
@STORE
def save_command(name: str, sources: tuple[Path, ...], only: tuple[str, ...], project: Path, store: Path | None) -> int:
    """Make what ships now the baseline NAME.

    OUT is an output folder of `edge-compress run`, or a model file. Default: the folders that the baseline came from,
    or out/ and dist/. Times are taken with synthetic rows: no row of anybody is stored.
    """
    from compress.cli.progress import Shown
    from compress.report.numbers import format_bytes, format_ms
    from compress.workflow.baseline import Baselines, store_folder
    from compress.workflow.save_baseline import save

    baselines = Baselines(project, store_folder(project, store))
    with Shown() as progress:
        saved = save(baselines, name, sources or _known(baselines, name), only, progress)
    for item in saved:
        figures = item.entry.figures
        click.echo(
            f"{item.model} on {item.target}: {item.entry.file}, {format_bytes(figures.size_bytes)},"
            f" {format_ms(figures.median_ms)}, sha256 {item.entry.sha256[:12]}"
        )
        click.echo(f"  written: {item.path}")
    click.echo(f"artifacts: {baselines.store.folder} (keep it where CI can cache it; it is not for git)")
    click.echo(f"next: commit {baselines.folder}, then: edge-compress check --against {name}")
    return 0


@command.command("list")
@PROJECT
@STORE
def list_command(project: Path, store: Path | None) -> int:
    """List every baseline and whether its artifact is there."""
    from compress.report.numbers import format_bytes, format_ms
    from compress.workflow.baseline import Baselines, store_folder

    baselines = Baselines(project, store_folder(project, store))
    found = 0
    for file in baselines.read():
        for name, entry in sorted(file.baselines.items()):
            found += 1
            there = "there" if baselines.store.blob(entry.sha256) is not None else "GONE"
            click.echo(
                f"{name}: {file.model} on {file.target}: {entry.file}, {format_bytes(entry.figures.size_bytes)},"
                f" {format_ms(entry.figures.median_ms)}, sha256 {entry.sha256[:12]}, artifact {there}"
            )
    if not found:
        click.echo("no baselines; save one: edge-compress baseline save NAME OUT")
    return 0


@command.command("restore")
@click.argument("name")
@click.option(
    "--from",
    "sources",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="FOLDER|FILE",
    help="Where to look for the artifacts, by their hash; repeatable. The recorded output folders are tried too.",
)
@PROJECT
@STORE
def restore_command(name: str, sources: tuple[Path, ...], project: Path, store: Path | None) -> int:
    """Put the artifacts of baseline NAME back into the store. A file is taken only if its hash is the recorded one."""
    from compress.workflow.baseline import Baselines, store_folder
    from compress.workflow.save_baseline import restore

    baselines = Baselines(project, store_folder(project, store))
    whole, missing = restore(baselines, name, sources)
    for text in whole:
        click.echo(f"{text}: there")
    for text in missing:
        click.echo(f"{text}: no file with its hash was found; give --from, or make it at the baseline's commit")
    return 3 if missing else 0


def _known(baselines: Baselines, name: str) -> tuple[Path, ...]:
    """The sources that a baseline was saved from, or the usual output folders."""
    known = {baselines.project / file.baselines[name].source for file in baselines.read() if name in file.baselines}
    usual = [baselines.project / folder for folder in ("out", "dist")]
    return tuple(sorted(known)) or tuple(path for path in usual if (path / "manifest.json").exists())
