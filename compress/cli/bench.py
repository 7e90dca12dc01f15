"""`edge-compress bench`: model files measured beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compress.errors import CompressError

_PATH = click.Path(path_type=Path)


@click.command("bench")
@click.argument("artifacts", nargs=-1, required=True, type=_PATH, metavar="ARTIFACT ...")
@click.option("--target", metavar="NAME", help="Target. Default: the generic profile of the files' runtime.")
@click.option("--recipe", type=_PATH, metavar="FILE", help="Feed its test rows. Default: synthetic rows.")
@click.option("--batch", default="1", metavar="N,N", help="Rows a call; the first is latency's, all are throughput's.")
@click.option("--threads", default="", metavar="N,N", help="Threads, likewise. Default: the target's.")
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.3, help="Timed seconds a process. Default 0.3.")
@click.option("--pairs", type=click.IntRange(5, 1000), default=9, help="Processes a file. Default 9.")
@click.option("--budget-s", type=click.FloatRange(min=0), default=30.0, help="Seconds a ratio. Default 30.")
@click.option("--sparse", type=click.IntRange(0, 600), default=5, help="Calls, one a second, caches cold. Default 5.")
@click.option("--tolerance", type=click.FloatRange(0.001, 1), default=0.02, help="What does not matter. Default 0.02.")
@click.option("--timeout-s", type=click.FloatRange(min=1), default=120.0, help="A worker that takes longer hangs.")
@click.option("--profile", is_flag=True, help="Time every operator with the runtime's own profiler.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE|-")
@click.option("--plot", type=_PATH, metavar="FILE.png", help="Draw the distribution of the samples.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of the order and of the synthetic rows.")
def command(artifacts: tuple[Path, ...], **given: Any) -> int:
    """Measure files of one runtime, interleaved; ratios are to the first of them."""
    from compress.cli.progress import Shown
    from compress.registry import require
    from compress.workflow.bench import BenchOptions, bench

    if given["plot"]:
        require("matplotlib", why="--plot")
    options = BenchOptions(
        target=given["target"],
        recipe=given["recipe"],
        batches=_numbers(given["batch"], "--batch"),
        threads=_numbers(given["threads"], "--threads") if given["threads"] else (),
        pairs=given["pairs"],
        budget_s=given["budget_s"],
        seconds=given["seconds"],
        sparse_calls=given["sparse"],
        profile=given["profile"],
        tolerance=given["tolerance"],
        timeout_s=given["timeout_s"],
        seed=given["seed"],
    )
    with Shown() as progress:
        found = bench(artifacts, options, progress)
    _show(found, given)
    return found.exit_code


def _show(found: Any, given: dict[str, Any]) -> None:
    from compress.evidence import to_json
    from compress.store.atomic import write_atomic

    if given["plot"]:
        from compress.report.latency import ecdf_png

        write_atomic(given["plot"], ecdf_png(found))
    if given["json_file"] and str(given["json_file"]) != "-":
        write_atomic(given["json_file"], to_json(found).encode() + b"\n")
    if str(given["json_file"]) == "-":
        click.echo(to_json(found))
        return
    from rich.console import Console

    from compress.report.latency import render_bench

    render_bench(found, Console())


def _numbers(text: str, flag: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 65_536 for part in parts):
        raise CompressError(f"{flag} must be whole numbers from 1 on; got {text!r}", f"for instance {flag} 1,8.")
    return tuple(dict.fromkeys(int(part) for part in parts))
