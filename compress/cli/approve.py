"""`edge-compress approve`: a run that passed becomes what is in force."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("approve")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--by", "who", required=True, metavar="WHO", envvar="EDGE_COMPRESS_BY", help='"Name <mail>" of who approves.'
)
@click.option("--reason", default="", metavar="TEXT", help="Why, in your words; the log keeps it.")
@click.option("--registry", type=click.Path(path_type=Path), metavar="DIR", help="Default: approved/ beside OUT.")
@click.option("--sign", "key", type=click.Path(path_type=Path), metavar="KEY", help="SSH key that signs the entry.")
@click.option("--override", default="", metavar="REASON", help="Approve what did not PASS; the log keeps the reason.")
@click.option("--ship", multiple=True, metavar="TARGET=SCHEME", help="With --override: what ships there; repeatable.")
def command(
    out: Path, who: str, reason: str, registry: Path | None, key: Path | None, override: str, ship: tuple[str, ...]
) -> int:
    """Approve the last run in OUT, the output folder of `edge-compress run`.

    What ships, its attachments, evidence and reports are copied by their hash, one entry is added to the log, and the
    pointer of the model moves. Refused with exit code 1 unless the gate said PASS.
    """
    from compress.workflow.approval import approve

    moved = approve(out, who, registry=registry, reason=reason, override=override, ship=_choices(ship), key=key)
    entry = moved.entry
    if moved.is_new:
        click.echo(f"{entry.model}: release {entry.sequence} is in force, approved by {entry.who}")
    else:
        click.echo(f"{entry.model}: release {entry.sequence} is in force already, nothing was added to the log")
    for target, shipped in entry.targets.items():
        click.echo(f"  {target}  {shipped.file}  {shipped.size_bytes:,} bytes  sha256 {shipped.sha256}")
    if entry.override:
        click.echo(f"  in spite of the gate ({entry.status}): {entry.override}")
    click.echo(f"deploy from: {moved.folder / 'models' / entry.model / 'current'}/")
    click.echo(f"head of the log: {entry.sha256}")
    where = shlex.quote(str(moved.folder))
    click.echo(f"check it:  edge-compress verify {entry.model} --registry {where}")
    click.echo(f"take back: edge-compress rollback {entry.model} --registry {where}")
    return 0


def _choices(ship: tuple[str, ...]) -> dict[str, str]:
    chosen = {}
    for text in ship:
        target, mark, scheme = text.partition("=")
        if not (target and mark and scheme):
            raise click.UsageError(f"--ship must be TARGET=SCHEME; got {text!r}")
        chosen[target] = scheme
    return chosen
