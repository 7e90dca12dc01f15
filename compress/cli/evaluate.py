"""`edge-compress evaluate`: any two models or score files beside each other."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("evaluate")
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    metavar="FILE|approved:NAME[@TARGET]",
    help="The baseline: a file, or what is approved and in force, checked first.",
)
@click.option("--recipe", "recipe_file", required=True, metavar="RECIPE", help="Rows, tasks, segments and policy.")
@click.option(
    "--target", metavar="NAME", help="Runtime, threads and budgets; default: the recipe's target of the file's runtime."
)
@click.option("--registry", type=click.Path(path_type=Path), default=Path("approved"), show_default=True, metavar="DIR")
@click.option(
    "--allowed-signers",
    "allowed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Who may sign; an approved baseline must then have good signatures.",
)
@click.option("--flips", type=click.Path(path_type=Path), metavar="FILE", help="Write the rows that flipped, as CSV.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as one HTML page.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as Markdown.")
@click.option("--json", "as_json", metavar="FILE", help="Write the evidence as JSON; - prints it, and nothing else.")
def command(
    candidate: Path,
    against: str,
    recipe_file: str,
    target: str | None,
    registry: Path,
    allowed: Path | None,
    flips: Path | None,
    html: Path | None,
    markdown: Path | None,
    as_json: str | None,
) -> int:
    """Judge CANDIDATE beside a baseline on the test rows of a recipe, by its policy.

    Each is an .onnx, .ort, .tflite, .pte or .pt2 file, whoever made it, or a .csv of scores: a column of the data's
    ids, and a column `score` (of several tasks, a column each). Exit codes: 0 passes, 1 fails, 3 not settled, 2 input
    error.
    """
    from compress.recipe import load_recipe
    from compress.target import load_target

    path = Path(recipe_file)
    recipe = load_recipe(path)
    chosen = load_target(target, path.parent) if target else None
    from compress.cli.progress import Shown
    from compress.evidence import to_json
    from compress.store.atomic import write_atomic
    from compress.workflow.approval import baseline_file
    from compress.workflow.evaluate import as_evidence, evaluate

    baseline = baseline_file(against, registry, allowed)
    with Shown() as progress:
        found = evaluate(recipe, path.parent, recipe_file, candidate, baseline, chosen, progress)
    text = to_json(found.evidence)
    written: list[tuple[str, Path, bytes]] = []
    if flips is not None:
        written.append(("flips", flips, found.flips))
    if html is not None or markdown is not None:
        from compress.report.html import render_html
        from compress.report.markdown import render_markdown

        whole = as_evidence(found, recipe)
        written += [("html", html, render_html(whole).encode())] if html is not None else []
        written += [("markdown", markdown, render_markdown(whole).encode())] if markdown is not None else []
    if as_json and as_json != "-":
        written.append(("json", Path(as_json), f"{text}\n".encode()))
    for _, file, data in written:
        write_atomic(file, data)
    if as_json == "-":
        click.echo(text)
        return found.exit_code
    from rich.console import Console

    from compress.report.evaluation import render

    render(found.evidence, Console())
    for name, file, _ in written:
        click.echo(f"{name}: {file}")
    return found.exit_code
