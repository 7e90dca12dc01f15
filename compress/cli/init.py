"""`edge-compress init`: a commented starter recipe that runs."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.cli.sources import check_model, default_name, is_factory, moved
from compress.errors import DataError, RecipeError
from compress.recipe import DataConfig, Recipe
from compress.schema import validate

if TYPE_CHECKING:
    from compress.workflow.plan import Plan

# How messages name the recipe that is not written yet.
_WHERE = "command line"

# A column with more different texts than this is a name or a remark, not a category.
_MAX_CATEGORIES = 100


@click.command("init")
@click.argument("model", metavar="MODEL")
@click.option("--data", required=True, metavar="FILE", help="Rows: .csv, .csv.gz, .parquet, .npz or file.py:function.")
@click.option("--label", required=True, metavar="COL", help="The column to predict, 0 or 1.")
@click.option(
    "--weights", metavar="FILE", help="Weights of a factory's model: .safetensors, or a plain state dictionary."
)
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
    """Write a commented recipe for MODEL, after checking that it loads with the data.

    MODEL is file.py:function, a .pt2, an .onnx or a Hugging Face folder.
    """
    check_model(model)
    if out.exists() and not force:
        raise RecipeError(f"{out}: is there already", "give another name with --out, or --force to replace it.")
    if not out.parent.is_dir():
        raise RecipeError(f"{out}: there is no folder {out.parent}", "create it; paths in a recipe are relative to it.")
    # Resolved: `..` in a path goes up from where a link leads.
    folder = out.parent.resolve()
    values: dict[str, Any] = {
        "schema": 1,
        "name": default_name(model),
        "model": {"source": _relative(model, folder)},
        "data": {"source": _relative(data, folder), "label": label},
        "targets": list(target) or ["onnxruntime-cpu", "litert-cpu"],
    }
    if weights:
        values["model"]["weights"] = _relative(weights, folder)
    for key, given in (("id", row_id), ("drop", list(drop)), ("sensitive", list(sensitive))):
        if given:
            values["data"][key] = given
    outputs, output, link, positives = _check(values, folder)
    text = _text(values, outputs, output, link, positives)
    from compress.store.atomic import write_atomic

    write_atomic(out, text.encode())
    click.echo(f"wrote {out}")
    if is_factory(model) and not weights:
        click.echo("check: without --weights the model is what the function returns; it must load the trained weights")
    if "categories" in values["data"]:
        listed = ", ".join(values["data"]["categories"])
        click.echo(f"check: the order of the values in [data.categories] ({listed}) must be that of the training")
    if len(outputs) > 1:
        click.echo(f"check: task.output = {output!r} is a guess; the model's outputs are {', '.join(outputs)}")
    click.echo(f"next: edge-compress run {shlex.quote(str(out))}")
    return 0


def _check(values: dict[str, Any], folder: Path) -> tuple[tuple[str, ...], str, str, str]:
    """Loads data and model once, so that the recipe that is written runs; fills in what the data and the model tell.

    Returns:
        The model's outputs, the one that answers the label, what it holds, and a sentence about the rows.
    """
    from compress.cli.progress import Shown
    from compress.workflow.plan import load_rows

    # Before the imports below, which load torch: a name that is wrong is told at once.
    _plan(values, folder)
    from compress.workflow.build import open_model
    from compress.workflow.holdout import only_label, take_holdout

    with Shown() as progress:
        progress.step("reading the data")
        try:
            dataset, labels = load_rows(_plan(values, folder))
        except DataError as error:
            found = _text_columns(values["data"], folder) if _asks_for_categories(error) else {}
            if not found:
                raise
            values["data"]["categories"] = found
            dataset, labels = load_rows(_plan(values, folder))
        models = open_model(_plan(values, folder), dataset, progress)
        outputs = tuple(item.name for item in models.original.signature.outputs)
        if len(outputs) > 1:
            values["task"] = {"output": outputs[0]}
        holdout = take_holdout(models, labels, _plan(values, folder))
    info = models.dataset.info(only_label(labels))
    share = sum(info.positives.values()) / info.rows if info.positives else 0.0
    return (
        outputs,
        holdout.questions[0].output,
        holdout.questions[0].link or "auto",
        f"{info.rows:,} rows, {share:.1%} positive",
    )


def _plan(values: dict[str, Any], folder: Path) -> Plan:
    from compress.workflow.plan import make_plan

    return make_plan(validate(Recipe, values, _WHERE), folder, _WHERE)


def _asks_for_categories(error: DataError) -> bool:
    return "data.categories" in error.hint


def _text_columns(values: dict[str, Any], folder: Path) -> dict[str, list[str]]:
    """The values of every feature of a table that holds text, for data.categories.

    Raises:
        DataError: If one of them has so many values that it is no category.
    """
    from compress.data.columns import default_inputs
    from compress.data.csvfile import read_csv
    from compress.data.parquet import read_parquet
    from compress.data.series import as_numbers, as_text

    path = folder / values["source"]
    if not path.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        return {}
    table = read_parquet(path) if path.name.lower().endswith(".parquet") else read_csv(path, (), {})
    found = {}
    for name in default_inputs(DataConfig.model_validate(values), table.columns):
        try:
            as_numbers(table[name], str(path))
        except DataError as error:
            if not _asks_for_categories(error):
                continue
            found[name] = sorted(set(as_text(table[name].dropna()).tolist()))
            if len(found[name]) > _MAX_CATEGORIES:
                raise DataError(
                    f"{path}: {name!r} holds text, {len(found[name]):,} different values in {len(table):,} rows",
                    f"leave it out with --drop {shlex.quote(name)}, or name it as the rows' id with --id.",
                ) from error
    return found


def _text(values: dict[str, Any], outputs: Sequence[str], output: str, link: str, positives: str) -> str:
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
        *_of_a_factory(model),
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
        lines += [
            "[data.categories]",
            "# A value becomes its position. Keep the order that the model was trained with.",
        ]
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
        *([f"# The model's outputs: {_toml(outputs)}. The first is a guess."] if len(outputs) > 1 else []),
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


def _of_a_factory(model: dict[str, Any]) -> list[str]:
    if not is_factory(model["source"]):
        return []
    weights = f"weights = {_toml(model['weights'])}" if "weights" in model else '# weights = "model.safetensors"'
    return [weights, "# arguments = { width = 128 }    # for the function"]


def _toml(value: Any) -> str:
    # A JSON string or list of strings is also TOML, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _relative(source: str, folder: Path) -> str:
    return moved(source, lambda path: os.path.relpath(path.absolute(), folder))
