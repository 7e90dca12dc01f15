"""`edge-compress inspect`: what is in a model file."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--layers",
    is_flag=True,
    help="Also list every layer, every tensor of a weights file, or every slice.",
)
@click.option("--groups", is_flag=True, help="List which slices of which weights a cut takes together.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def command(file: Path, layers: bool, groups: bool, as_json: bool) -> int:
    """Describe FILE without running it: a .pt2, .onnx, .ort, .tflite, or a file of weights."""
    if groups:
        from rich.console import Console

        from compress.cli.groups import groups_to_plain, render_groups

        if as_json:
            click.echo(json.dumps(groups_to_plain(file), indent=2))
            return 0
        render_groups(file, Console(), members=layers)
        return 0
    from compress.cli.inspect import inspect_file, render, to_plain

    info = inspect_file(file)
    if as_json:
        click.echo(json.dumps(to_plain(info), indent=2))
        return 0
    from rich.console import Console

    render(info, Console(), layers=layers)
    return 0
