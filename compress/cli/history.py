"""`edge-compress history`: who approved what, and when."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from compress.store.ledger import Entry

_COLUMNS = ("entry", "when (UTC)", "action", "model", "release", "gate", "signed")


@click.command("history")
@click.argument("name", required=False)
@click.option("--registry", type=click.Path(path_type=Path), default=Path("approved"), show_default=True, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the entries as JSON, and nothing else.")
def command(name: str | None, registry: Path, as_json: bool) -> int:
    """List every approval and rollback, of the model NAME or of all; * marks what is in force."""
    from compress.errors import StoreError, did_you_mean
    from compress.store.ledger import state_of
    from compress.store.ledger_registry import Registry

    log = Registry(registry).read()
    if name is not None and name not in log.models:
        raise StoreError(f"{registry}: no model {name!r} was approved here", did_you_mean(name, log.models))
    states = [state_of(log.entries, model) for model in log.models]
    in_force = {state.moved.sequence for state in states if state is not None}
    shown = [entry for entry in log.entries if name in (None, entry.model)]
    if as_json:
        entries = [{**asdict(item), "sha256": item.sha256, "in_force": item.sequence in in_force} for item in shown]
        click.echo(json.dumps({"entries": entries, "problems": log.problems}, indent=1))
    else:
        _print(shown, in_force)
    for problem in log.problems:
        click.echo(f"damaged: {problem}", err=True)
    if log.problems:
        return 1
    return 0


def _print(entries: list[Entry], in_force: set[int]) -> None:
    """A line an entry, below it what may be long: columns of names and reasons cannot be read where it is narrow."""
    from compress.report.text import plain

    if not entries:
        click.echo("nothing was approved yet")
        return
    rows = [_COLUMNS, *(_cells(entry, entry.sequence in in_force) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    click.echo(lines[0])
    for entry, line in zip(entries, lines[1:], strict=True):
        click.echo(plain(line))
        ships = ", ".join(f"{target} {item.scheme}" for target, item in entry.targets.items())
        for name, text in (
            ("ships", ships),
            ("by", entry.who),
            ("reason", entry.reason),
            ("override", entry.override),
        ):
            if text:
                click.echo(f"         {name}: {plain(text)}")


def _cells(entry: Entry, is_in_force: bool) -> tuple[str, ...]:
    return (
        f"{'*' if is_in_force else ' '} {entry.sequence}",
        entry.when[:16].replace("T", " "),
        entry.action,
        entry.model,
        str(entry.release),
        entry.status,
        "yes" if entry.signed else "no",
    )
