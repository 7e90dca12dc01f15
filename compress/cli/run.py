"""`edge-compress run`: the main job."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from compress.cli.sources import check_model, default_name, moved
from compress.errors import RecipeError
from compress.recipe import Recipe, load_recipe
from compress.schema import read_toml, validate

_FLAGS = {
    "weights": ("model", "weights"),
    "data": ("data", "source"),
    "label": ("data", "label"),
    "row_id": ("data", "id"),
    "drop": ("data", "drop"),
    "sensitive": ("data", "sensitive"),
    "output": ("task", "output"),
    "link": ("task", "link"),
    "cutoff": ("task", "cutoff"),
    "scheme": ("schemes",),
    "target": ("targets",),
    "seed": ("seed",),
    "name": ("name",),
}


@click.command("run")
@click.argument("source", metavar="RECIPE|MODEL")
@click.option("--weights", metavar="FILE", help="Weights of a factory's model. [model.weights]")
@click.option("--data", metavar="FILE", help="Rows: .csv, .csv.gz, .parquet, .npz or file.py:function. [data.source]")
@click.option("--label", metavar="COL", help="The column to predict, 0 or 1. [data.label]")
@click.option("--id", "row_id", metavar="COL", help="The column that identifies a row. [data.id]")
@click.option("--drop", metavar="COL", multiple=True, help="A column that is no feature; repeatable. [data.drop]")
@click.option("--sensitive", metavar="COL", multiple=True, help="A sensitive column; repeatable. [data.sensitive]")
@click.option("--output", metavar="NAME", help="The model output that answers the label. [task.output]")
@click.option("--link", type=click.Choice(["auto", "logit", "probability"]), help="What the output holds. [task.link]")
@click.option("--cutoff", type=float, metavar="P", help="Probability from which a row is positive. [task.cutoff]")
@click.option("--scheme", metavar="NAME", multiple=True, help="A scheme to try; repeatable. [schemes]")
@click.option("--target", metavar="NAME", multiple=True, help="A target; repeatable. [targets]")
@click.option("--seed", type=int, metavar="N", help="Seed of everything drawn. [seed]")
@click.option("--name", metavar="NAME", help="Name of the artifacts. [name]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Output folder. Default: out/ beside the recipe, dist/ for a model.",
)
@click.option("--print-recipe", is_flag=True, help="Print the resolved recipe as JSON and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the evidence as JSON, and nothing else.")
def command(source: str, out: Path | None, print_recipe: bool, as_json: bool, **flags: Any) -> int:
    """Compress, export, measure and report.

    RECIPE is a .toml file. A MODEL (file.py:function, a .pt2, an .onnx or a Hugging Face folder) needs --data and
    --label; other flags have defaults.
    A flag given beside a recipe replaces its value.
    """
    recipe, folder, where = resolve(source, flags)
    if print_recipe:
        click.echo(json.dumps(recipe.model_dump(mode="json", by_alias=True), indent=2))
        return 0
    from compress.workflow.plan import make_plan

    # Before the import below, which loads torch: a name that is wrong is told at once.
    make_plan(recipe, folder, where)
    from compress.cli.progress import Shown
    from compress.workflow.run import run

    chosen = out or (folder / "out" if source.endswith(".toml") else Path("dist"))
    origin = os.path.relpath(Path(source).absolute(), chosen.absolute())
    with Shown() as progress:
        outcome = run(recipe, folder, chosen, f"{recipe.name} ({origin})", where, progress)
    if as_json:
        from compress.evidence import to_json

        click.echo(to_json(outcome.evidence))
        return outcome.exit_code
    from rich.console import Console

    from compress.report.terminal import render

    console = Console()
    render(outcome.evidence, console)
    click.echo(f"\n{outcome.status}: {_steps(outcome.reused, outcome.made)}")
    click.echo(f"report:    {chosen / 'report.html'}")
    click.echo(f"artifacts: {chosen / 'artifacts'}/")
    for target, file in outcome.ships.items():
        click.echo(f"           {Path(file).name} ships on {target}")
    return outcome.exit_code


def _steps(reused: int, made: int) -> str:
    if not made:
        return f"all {reused} steps reused from an earlier run, nothing has changed."
    if not reused:
        return f"{made} steps carried out."
    return f"{reused} of {reused + made} steps reused from an earlier run."


def resolve(source: str, flags: dict[str, Any]) -> tuple[Recipe, Path, str]:
    """Turns a recipe file or a model, and flags, into a checked recipe.

    Args:
        source: A `.toml` file, or a model source.
        flags: By the names of the options; None and `()` mean not given.

    Returns:
        The recipe, the folder that its paths are relative to, and its name for messages.

    Raises:
        RecipeError: Naming the key or the flag that is missing or wrong.
    """
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if source.endswith(".toml"):
        path = Path(source)
        if not given:
            return load_recipe(path), path.parent, source
        return validate(Recipe, _merged(read_toml(path), given, absolute=True), source), path.parent, source
    check_model(source)
    for flag in ("data", "label"):
        if flag not in given:
            raise RecipeError(
                f"--{flag} is missing: {source!r} is a model, not a recipe",
                f"give --{flag}, or write a recipe: edge-compress init {shlex.quote(source)} --data FILE --label COL.",
            )
    given.setdefault("name", default_name(source))
    given.setdefault("target", ("onnxruntime-cpu", "litert-cpu"))
    values = _merged({"schema": 1, "model": {"source": source}, "data": {}}, given, absolute=False)
    return validate(Recipe, values, "command line"), Path(), "command line"


def _merged(values: dict[str, Any], given: dict[str, Any], *, absolute: bool) -> dict[str, Any]:
    for name, value in given.items():
        *tables, key = _FLAGS[name]
        holder = values
        for table in tables:
            holder = holder.setdefault(table, {})
            if not isinstance(holder, dict):
                # The schema will say that this is no table; there is no place for the flag.
                return values
        if absolute and name in ("data", "weights"):
            # A path typed on the command line is relative to where it was typed, not to the recipe.
            value = moved(value, lambda path: str(path.absolute()))
        holder[key] = list(value) if isinstance(value, tuple) else value
    return values
