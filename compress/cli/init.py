"""`edge-compress init`: a commented starter recipe that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from compress.errors import CompressError, DataError, RecipeError
from compress.recipe import Recipe
from compress.schema import validate


@click.command("init")
@click.argument("model", metavar="MODEL")
@click.option("--data", required=True, metavar="FILE", help="Rows: .csv, .csv.gz, .parquet, .npz or file.py:function.")
@click.option("--label", required=True, metavar="COL", help="The column to predict, 0 or 1.")
@click.option("--weights", metavar="FILE", help="Weights of a factory's model: .safetensors, or a plain state dictionary.")
@click.option("--id", "row_id", metavar="COL", help="The column that identifies a row.")
@click.option("--drop", metavar="COL", multiple=True, help="A column that is no feature; repeatable.")
@click.option("--sensitive", metavar="COL", multiple=True, help="A sensitive column; repeatable.")
@click.option("--target", metavar="NAME", multiple=True, help="A target; repeatable. Default: both generic profiles.")
@click.option("--out", default="recipe.toml", type=click.Path(path_type=Path), metavar="FILE", show_default=True)
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
def command(
    model: str,
    data: str,
    label: str,
    weights: str | None,
    row_id: str | None,
    drop: Sequence[str],
    sensitive: Sequence[str],
    target: Sequence[str],
    out: Path,
    force: bool,
) -> int:
    """Write a commented recipe for MODEL (file.py:function or a .pt2), after checking that it loads with the data."""
    if out.exists() and not force:
        raise RecipeError(f"{out}: is there already", "give another name with --out, or --force to replace it.")
    folder = out.absolute().parent
    values: dict[str, Any] = {
        "schema": 1,
        "name": _stem(model),
        "model": {"source": _relative(model, folder)},
        "data": {"source": _relative(data, folder), "label": label},
        "targets": list(target) or ["onnxruntime-cpu", "litert-cpu"],
    }
    if weights:
        values["model"]["weights"] = _relative(weights, folder)
    for key, given in (("id", row_id), ("drop", list(drop)), ("sensitive", list(sensitive))):
        if given:
            values["data"][key] = given
    output, link, positives = _check(values, folder, str(out))
    text = _text(values, output, link, positives)
    from compress.store.atomic import write_atomic

    write_atomic(out, text.encode())
    click.echo(f"wrote {out}\nnext: edge-compress run {out}")
    return 0


def _check(values: dict[str, Any], folder: Path, where: str) -> tuple[str, str, str]:
    """Loads data and model once, so that the recipe that is written runs; fills in categories of text columns."""
    from compress.cli.progress import Shown
    from compress.workflow.build import build_models
    from compress.workflow.measure import take_holdout
    from compress.workflow.plan import load_rows, make_plan

    with Shown() as progress:
        progress.step("reading the data")
        recipe = validate(Recipe, values, where)
        try:
            dataset, label = load_rows(make_plan(recipe, folder, where))
        except DataError as error:
            found = _text_columns(values["data"], folder, error)
            if not found:
                raise
            values["data"]["categories"] = found
            recipe = validate(Recipe, values, where)
            dataset, label = load_rows(make_plan(recipe, folder, where))
        plan = make_plan(recipe, folder, where)
        models = build_models(plan, dataset, progress)
        try:
            holdout = take_holdout(models, label, plan)
        except RecipeError:
            # Several outputs: the first is a guess that the comment in the recipe names as one.
            values["task"] = {"output": models.original.signature.outputs[0].name}
            plan = make_plan(validate(Recipe, values, where), folder, where)
            holdout = take_holdout(models, label, plan)
    info = models.dataset.info(label)
    share = sum(info.positives.values()) / info.rows if info.positives else 0.0
    return holdout.output, holdout.link, f"{info.rows:,} rows, {share:.1%} positive"


def _text_columns(config: dict[str, Any], folder: Path, error: CompressError) -> dict[str, list[str]]:
    """The values of text columns of a table, for data.categories; nothing when the error has another cause."""
    if "categories" not in error.message + error.hint or not str(config["source"]).endswith((".csv", ".csv.gz", ".parquet")):
        return {}
    import pandas as pd

    path = folder / config["source"]
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    skipped = {config["label"], config.get("id"), *config.get("drop", ())}
    return {
        str(name): sorted(str(value) for value in table[name].dropna().unique())
        for name in table.columns
        if name not in skipped and not pd.api.types.is_numeric_dtype(table[name])
    }


def _text(values: dict[str, Any], output: str, link: str, positives: str) -> str:
    data, model = values["data"], values["model"]
    lines = [
        "# A recipe for edge-compress. Paths are relative to this file; an unknown key is an error.",
        "# Every key and its default: edge-compress run RECIPE --print-recipe",
        "schema = 1",
        f"name = {_toml(values['name'])}",
        "# What to try, beside the float32 baseline. Also: float16.",
        'schemes = ["float32", "int8-static", "int8-dynamic"]',
        "# Where it must run. `edge-compress targets` lists what can be named.",
        f"targets = {_toml(values['targets'])}",
        "",
        "[model]",
        f"source = {_toml(model['source'])}",
        *([f"weights = {_toml(model['weights'])}"] if "weights" in model else []),
        "# arguments = { width = 128 }    # for the factory",
        "",
        "[data]",
        f"# {positives}",
        f"source = {_toml(data['source'])}",
        f"label = {_toml(data['label'])}",
        (f"id = {_toml(data['id'])}" if "id" in data else '# id = "COLUMN"    # a row then keeps its split'),
        *([f"drop = {_toml(data['drop'])}"] if "drop" in data else ["# drop = []    # columns that are no features"]),
        (
            f"sensitive = {_toml(data['sensitive'])}"
            if "sensitive" in data
            else '# sensitive = ["SEX"]    # reported by group; still a feature unless dropped'
        ),
        '# missing = "nan"    # what an empty cell becomes: "nan", "error" or a number',
        "",
    ]
    if "categories" in data:
        lines += ["[data.categories]", "# A value becomes its position. Keep the order that the model was trained with."]
        lines += [f"{_toml(name)} = {_toml(found)}" for name, found in data["categories"].items()]
        lines.append("")
    lines += [
        "[data.split]",
        "# The test rows measure and decide nothing; calibration rows set integer ranges.",
        'by = "hash"    # or "stratified", "random", "time" and "column" (both with column = "...")',
        "seed = 0",
        "train = 0.6",
        "calibration = 0.1",
        "validation = 0.1",
        "test = 0.2",
        "",
        "[task]",
        'kind = "binary"',
        f"output = {_toml(output)}",
        f"link = {_toml(link)}    # what the output holds: a logit or a probability",
        "cutoff = 0.5    # the probability from which a row counts as positive",
        "",
        "[gate]",
        "# What ships must not lose more than this; the whole 95 % interval must lie inside.",
        "auc_margin = 0.003",
        "min_agreement = 0.98    # share of equal decisions at the cut-off",
    ]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # A JSON string or list of strings is also TOML, but for DEL, which no column is named by.
    return json.dumps(value, ensure_ascii=False)


def _relative(source: str, folder: Path) -> str:
    path, colon, function = source.partition(":")
    if colon and not path.endswith(".py"):
        return source
    return os.path.relpath(Path(path).absolute(), folder) + colon + function


def _stem(model: str) -> str:
    stem = Path(model.partition(":")[0]).stem
    cleaned = "".join(character if character.isalnum() or character in "._-" else "-" for character in stem)
    return cleaned.strip("._-")[:64] or "model"
