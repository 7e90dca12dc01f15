"""The history of checks as a picture: the ratio of every model and target over time."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from compress.errors import StoreError
from compress.registry import require


def read_history(path: Path) -> list[dict[str, Any]]:
    """Reads the lines that checks appended; a last line that a killed check left unfinished is skipped.

    Raises:
        StoreError: If the file cannot be read, or a line before the last is no JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}", "check the path.") from error
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            if not isinstance(values, dict) or not {"model", "target", "created"} <= values.keys():
                raise ValueError("it is no line of a check")
        except ValueError as error:
            if number == len(lines):
                break
            raise StoreError(f"{path}: line {number}: {error}", "remove that line.") from error
        found.append(values)
    return found


def trend_png(history: list[dict[str, Any]]) -> bytes:
    """Returns a PNG: one line a model and target, its interval as a band, one position a check.

    Raises:
        MissingPackageError: If matplotlib is not installed.
    """
    require("matplotlib", why="the trend plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in sorted({(item["model"], item["target"]) for item in history}):
        rows = [item for item in history if (item["model"], item["target"]) == name and item.get("ratio")]
        places = [item["created"] for item in rows]
        axes.plot(places, [item["ratio"] for item in rows], marker="o", label=f"{name[0]} on {name[1]}")
        bands = [item.get("interval") or [item["ratio"], item["ratio"]] for item in rows]
        axes.fill_between(places, [low for low, _ in bands], [high for _, high in bands], alpha=0.2)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_ylabel("candidate / baseline time")
    axes.tick_params(axis="x", rotation=30)
    if axes.lines[:-1]:
        axes.legend(fontsize="small")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
