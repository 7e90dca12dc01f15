"""`edge-compress report`: the reports again, from the evidence alone."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("out", metavar="OUT|EVIDENCE", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Default: report.html in this folder.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="The report as Markdown.")
@click.option("--card", type=click.Path(path_type=Path), metavar="FILE", help="The model card, Markdown.")
def command(out: Path, html: Path | None, markdown: Path | None, card: Path | None) -> int:
    """Write the reports of a run again: OUT is its output folder, or an evidence.json.

    Nothing is measured, and nothing in OUT is changed: what a run wrote is named by its hashes.
    """
    from compress.errors import StoreError
    from compress.evidence import load_evidence
    from compress.report.card import render_card
    from compress.report.html import render_html
    from compress.report.markdown import render_markdown
    from compress.store.atomic import write_atomic

    evidence = load_evidence(out / "evidence.json" if out.is_dir() else out)
    if not (html or markdown or card):
        html = Path("report.html")
    wanted = ((html, render_html), (markdown, render_markdown), (card, render_card))
    folder = out.resolve() if out.is_dir() else out.resolve().parent
    for path, _ in wanted:
        if path is not None and path.absolute().parent.resolve().is_relative_to(folder):
            raise StoreError(f"{path}: lies in the folder of the run", "choose a file elsewhere with --html FILE.")
    for path, render in wanted:
        if path is not None:
            write_atomic(path, render(evidence).encode())
            click.echo(f"written: {path}")
    return 0
