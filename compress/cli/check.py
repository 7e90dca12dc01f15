"""`edge-compress check`: is what ships now slower than its baseline?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.cli.baseline import PROJECT, STORE
from compress.errors import CompressError

if TYPE_CHECKING:
    from compress.bench.verdicts import CheckResult

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("check")
@click.option("--against", default="main", metavar="NAME", show_default=True, help="The baseline.")
@click.option("--candidate", "candidates", multiple=True, metavar="MODEL=FILE", help="Compare this file instead.")
@click.option("--budget-s", type=click.FloatRange(min=0), default=60.0, metavar="N", help="Seconds a row. Default 60.")
@click.option("--tolerance", type=click.FloatRange(0.001, 1), metavar="SHARE", help="Over the targets' own, 0.02.")
@click.option("--timeout-s", type=click.FloatRange(min=1), default=120.0, help="A worker that takes longer hangs.")
@click.option("--python-baseline", metavar="PATH", help="The baseline's artifact in this Python ...")
@click.option("--python-candidate", metavar="PATH", help="... and in this one, with another runtime version.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of who goes first.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE|-")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write a summary for a pull request.")
@click.option("--history", type=_FILE, metavar="FILE", help="Append a line of JSON a row.")
@click.option("--trend", type=_FILE, metavar="FILE", help="Draw the history as a PNG (needs --history).")
@click.option("--github", is_flag=True, help="Print annotations for GitHub Actions.")
@PROJECT
@STORE
def command(**given: Any) -> int:
    """Compare what ships now with a baseline, both measured now, in turns, in the same processes.

    Exit codes: 0 nothing is worse, 1 SLOWER or a rule is broken, 2 usage, 3 UNKNOWN, INCOMPARABLE or nothing measured.
    """
    from compress.cli.progress import Shown
    from compress.registry import require
    from compress.workflow.baseline import Baselines, store_folder
    from compress.workflow.check import CheckOptions, check

    pythons = (given["python_baseline"], given["python_candidate"])
    if (pythons[0] is None) != (pythons[1] is None):
        raise CompressError("--python-baseline and --python-candidate belong together", "give both, or neither.")
    if given["trend"] and not given["history"]:
        raise CompressError("--trend draws the history, and there is none", "give --history FILE too.")
    if given["trend"]:
        require("matplotlib", why="--trend")
    options = CheckOptions(
        against=given["against"],
        budget_s=given["budget_s"],
        candidates=_candidates(given["candidates"]),
        pythons=pythons if pythons[0] is not None else None,
        tolerance=given["tolerance"],
        timeout_s=given["timeout_s"],
        seed=given["seed"],
    )
    baselines = Baselines(given["project"], store_folder(given["project"], given["store"]))
    with Shown() as progress:
        result = check(baselines, options, progress)
    _write(result, given)
    _print(result, given)
    return result.exit_code


def _candidates(texts: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for text in texts:
        model, equals, file = text.partition("=")
        if not (model and equals and file):
            raise CompressError(f"--candidate {text}: must be MODEL=FILE", "for instance credit=new.onnx.")
        found[model] = Path(file)
    return found


def _write(result: CheckResult, given: dict[str, Any]) -> None:
    from compress.report.check import check_json, history_lines, markdown
    from compress.report.junit import junit
    from compress.store.atomic import stated, write_atomic

    if given["junit"]:
        write_atomic(given["junit"], junit(result))
    if given["markdown"]:
        write_atomic(given["markdown"], markdown(result).encode())
    if given["json_file"] and str(given["json_file"]) != "-":
        write_atomic(given["json_file"], check_json(result).encode() + b"\n")
    if given["history"] and result.rows:
        text = "".join(f"{line}\n" for line in history_lines(result))
        with stated(given["history"]):
            given["history"].parent.mkdir(parents=True, exist_ok=True)
            # One write to a file opened for appending: two checks do not mix their lines.
            with given["history"].open("ab", buffering=0) as file:
                file.write(text.encode())
    if given["trend"] and given["history"].exists():
        from compress.report.trend import read_history, trend_png

        write_atomic(given["trend"], trend_png(read_history(given["history"])))


def _print(result: CheckResult, given: dict[str, Any]) -> None:
    from compress.report.check import check_json, github_annotations, render_check

    if str(given["json_file"]) == "-":
        click.echo(check_json(result))
        return
    from rich.console import Console

    render_check(result, Console())
    if not result.rows:
        click.echo(f"hint: save one: edge-compress baseline save {result.against} OUT", err=True)
    if given["github"]:
        for line in github_annotations(result):
            click.echo(line)
