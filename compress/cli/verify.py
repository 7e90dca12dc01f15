"""`edge-compress verify`: every hash of what was approved, computed again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command("verify")
@click.argument("name", required=False)
@click.option("--registry", type=click.Path(path_type=Path), default=Path("approved"), show_default=True, metavar="DIR")
@click.option(
    "--allowed-signers",
    "allowed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Who may sign (ssh-keygen's format); every entry must then have a good signature.",
)
@click.option("--head", metavar="SHA256", help="An entry's hash that you noted elsewhere: the log must still hold it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def command(name: str | None, registry: Path, allowed: Path | None, head: str | None, as_json: bool) -> int:
    """Check the log's chain, every artifact, report and piece of evidence, and the signatures.

    Exit code 0: all is what was approved. 1: something is not, each thing is named. 3: nothing was approved yet.
    """
    from compress.report.text import plain
    from compress.store.ledger_check import check_registry
    from compress.store.ledger_registry import Registry

    checked = check_registry(Registry(registry), name, allowed, head)
    code = 1 if checked.problems else 0 if checked.entries else 3
    if as_json:
        click.echo(json.dumps(asdict(checked), indent=1))
        return code
    for problem in checked.problems:
        click.echo(f"{click.style('damaged', fg='red', bold=True)}: {plain(problem)}")
    if checked.problems:
        count = len(checked.problems)
        click.echo(f"{registry}: {count} {'thing is' if count == 1 else 'things are'} not as approved", err=True)
        return code
    if not checked.entries:
        click.echo(f"{registry}: nothing was approved yet, so nothing was checked")
        return code
    entries = "1 entry" if checked.entries == 1 else f"{checked.entries} entries"
    files = "1 file" if checked.files == 1 else f"{checked.files} files"
    click.echo(f"OK: {entries} in one chain, {files} ({checked.size_bytes:,} bytes) hashed again, pointers as logged")
    for model, release in checked.models.items():
        click.echo(f"  {plain(model)}: release {release} is in force")
    for sentence in checked.signatures:
        click.echo(f"  {plain(sentence)}")
    click.echo(f"head of the log: {checked.head}")
    return code
