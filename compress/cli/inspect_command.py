"""`edge-compress inspect`: what is in a model file."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--layers", is_flag=True, help="Also list every layer, or every tensor of a weights file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def command(file: Path, layers: bool, as_json: bool) -> int:
    """Describe FILE without running it: a .pt2, .onnx, .tflite, or a file of weights."""
    from compress.cli.inspect import inspect_file, render, to_plain

    info = inspect_file(file)
    if as_json:
        click.echo(json.dumps(to_plain(info), indent=2))
        return 0
    from rich.console import Console

    render(info, Console(), layers=layers)
    return 0
