"""`edge-compress rollback`: an older release is in force again, in one command."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("rollback")
@click.argument("name")
@click.option("--to", type=int, metavar="N", help="Release; default: the newest older one nobody rolled back from.")
@click.option(
    "--by", "who", required=True, metavar="WHO", envvar="EDGE_COMPRESS_BY", help='"Name <mail>" of who does it.'
)
@click.option("--reason", default="", metavar="TEXT", help="Why, in your words; the log keeps it.")
@click.option("--registry", type=click.Path(path_type=Path), default=Path("approved"), show_default=True, metavar="DIR")
@click.option("--sign", "key", type=click.Path(path_type=Path), metavar="KEY", help="SSH key that signs the entry.")
def command(name: str, to: int | None, who: str, reason: str, registry: Path, key: Path | None) -> int:
    """Put an older release of the model NAME in force again.

    Its files are checked first; one entry is added to the log, nothing is removed, and the pointer moves in one step.
    """
    from compress.workflow.approval import rollback

    moved = rollback(registry, name, who, to=to, reason=reason, key=key)
    entry = moved.entry
    if moved.is_new:
        click.echo(f"{name}: release {entry.release} is in force again (entry {entry.sequence}, by {entry.who})")
    else:
        click.echo(f"{name}: release {entry.release} is in force, nothing was added to the log")
    for target, shipped in entry.targets.items():
        click.echo(f"  {target}  {shipped.file}  sha256 {shipped.sha256}")
    click.echo(f"deploy from: {moved.folder / 'models' / name / 'current'}/")
    return 0
