"""`edge-compress targets`: what a recipe can name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from compress.errors import CompressError
from compress.target import Target, load_target, profiles, project_targets

# Where a target comes from that no file of the project describes.
PROFILE = "profile"


@click.command("targets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def command(as_json: bool) -> int:
    """List the generic profiles, and the targets of the nearest targets/ folder."""
    # As in a recipe, a project's target hides the profile of the same name.
    own = {name: str(_short(path)) for name, path in project_targets(Path.cwd()).items()}
    found = {**dict.fromkeys(profiles(), PROFILE), **own}
    rows: list[tuple[str, str, Target | None, str]] = []
    for name, origin in found.items():
        try:
            rows.append((name, origin, load_target(name, Path.cwd()), ""))
        except CompressError as error:
            rows.append((name, origin, None, error.message))
    if as_json:
        click.echo(json.dumps([_plain(*row) for row in rows], indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("target", "runs on", "what it is"):
        table.add_column(column, overflow="fold", no_wrap=column == "target")
    for name, origin, target, problem in rows:
        told = Text(problem if target is None else target.description)
        if origin != PROFILE:
            told.append(f" ({origin})", style="dim")
        table.add_row(Text(name), Text("-" if target is None else _host(target)), told)
    Console().print(table)
    return 0


def _host(target: Target) -> str:
    """Where it runs, and on which class of processors where that is not any."""
    return target.host if target.cpu == "any" else f"{target.host}, {target.cpu}"


def _plain(name: str, origin: str, target: Target | None, problem: str) -> dict[str, Any]:
    if target is None:
        return {"name": name, "origin": origin, "error": problem}
    return {"name": name, "origin": origin, **target.model_dump(mode="json", by_alias=True, exclude={"name"})}


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
