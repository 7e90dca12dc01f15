"""`edge-compress evaluate`: any two models or score files beside each other."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("evaluate")
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--against", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The baseline.")
@click.option("--recipe", "recipe_file", required=True, metavar="RECIPE", help="Rows, tasks, segments and policy.")
@click.option("--target", metavar="NAME", help="Threads and budgets; default: the recipe's target of the runtime.")
@click.option("--flips", type=click.Path(path_type=Path), metavar="FILE", help="Write the rows that flipped, as CSV.")
@click.option("--json", "as_json", metavar="FILE", help="Write the evidence as JSON; - prints it, and nothing else.")
def command(
    candidate: Path, against: Path, recipe_file: str, target: str | None, flips: Path | None, as_json: str | None
) -> int:
    """Judge CANDIDATE beside a baseline on the test rows of a recipe, by its policy.

    Each is an .onnx or .tflite file, whoever made it, or a .csv of scores: a column of the data's ids, and a column
    `score` (of several tasks, a column each). Exit codes: 0 passes, 1 fails, 3 not settled, 2 input error.
    """
    from compress.recipe import load_recipe
    from compress.target import load_target

    path = Path(recipe_file)
    recipe = load_recipe(path)
    chosen = load_target(target, path.parent) if target else None
    from compress.cli.progress import Shown
    from compress.evidence import to_json
    from compress.workflow.evaluate import evaluate

    with Shown() as progress:
        found = evaluate(recipe, path.parent, recipe_file, candidate, against, chosen, progress)
    if flips is not None:
        flips.write_bytes(found.flips)
    if as_json == "-":
        click.echo(to_json(found.evidence))
        return found.exit_code
    if as_json:
        Path(as_json).write_text(to_json(found.evidence) + "\n", encoding="utf-8")
    from rich.console import Console

    from compress.report.evaluation import render

    render(found.evidence, Console())
    for name, written in (("flips", flips), ("json", as_json)):
        if written:
            click.echo(f"{name}: {written}")
    return found.exit_code
