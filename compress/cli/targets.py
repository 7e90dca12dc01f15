"""`edge-compress targets`: what a recipe can name."""

from __future__ import annotations

import json
from pathlib import Path

import click

from compress.errors import CompressError
from compress.target import Target, load_target, profiles, project_targets


@click.command("targets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def command(as_json: bool) -> int:
    """List the generic profiles, and the targets of the nearest targets/ folder."""
    found = [(name, "profile") for name in profiles()]
    found += [(path.stem, str(_short(path))) for path in project_targets(Path.cwd()).values()]
    rows: list[tuple[str, str, Target | None, str]] = []
    for name, origin in found:
        try:
            rows.append((name, origin, load_target(name, Path.cwd()), ""))
        except CompressError as error:
            rows.append((name, origin, None, error.message))
    if as_json:
        click.echo(
            json.dumps(
                [
                    {"name": name, "origin": origin, **(target.model_dump(mode="json", by_alias=True) if target else {})}
                    | ({"error": problem} if problem else {})
                    for name, origin, target, problem in rows
                ],
                indent=2,
            )
        )
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("target", "runtime", "host", "threads", "cpu", "description", "from"):
        table.add_column(column, overflow="fold")
    for name, origin, target, problem in rows:
        if target is None:
            table.add_row(name, "-", "-", "-", "-", problem, origin)
        else:
            table.add_row(
                name, target.runtime, target.host, str(target.threads), target.cpu, target.description, origin
            )
    Console().print(table)
    return 0


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
