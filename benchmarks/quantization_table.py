"""The figures of `quantization.py` as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = """# int8 files beside those of other tools

Written by `python benchmarks/quantization.py`; ratios are to the float32 file of the same case, below 1 is faster.
Latency: one row a call, one thread, median by the wall clock; the ratio compares processor time of calls in turns with
the float32 file, over several processes, with its 99 % interval. Quality: on test rows, difference to float32 with the
paired 95 % interval. Cost: time of calibrating and quantizing, and peak memory above what the tool holds once it is
imported.
"""
_COLUMNS = ("tool, setting", "latency", "ratio", "quality", "difference", "SQNR", "size", "time", "memory")


def render(kept: Mapping[str, Any]) -> str:
    """Returns a table a case."""
    parts = [_HEAD]
    for name, case in sorted(kept.items()):
        rows = case["rows"]
        parts += [f"## {case['title']}; {name.partition(', ')[2]}", ""]
        parts += [f"{rows['calibration']} calibration rows, {rows['test']} test rows; {case['cpu']}.", ""]
        if not case["labelled"]:
            parts += ["The rows have no label of the model's: quality is agreement with the float32 file.", ""]
        parts += [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
        # The float32 file, then by name: the order does not hang on which case was measured last.
        ordered = sorted(case["tools"].items(), key=lambda item: (item[0] != "float32", item[0]))
        parts += [_line(_row(label, found)) for label, found in ordered]
        parts += [""]
    return "\n".join(parts)


def _row(label: str, found: Mapping[str, Any]) -> list[str]:
    if "error" in found:
        return [label, str(found["error"]).replace("|", "/"), *[""] * (len(_COLUMNS) - 2)]
    ratio, interval = found.get("ratio"), found["interval"]
    return [
        label,
        f"{found['ms']:.2f} ms",
        f"{ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]" if ratio else "1",
        f"{found['metric']} {found['quality']:.4f}",
        f"{found['difference']:+.4f} [{interval[0]:+.4f}, {interval[1]:+.4f}]" if ratio and interval else "",
        f"{found['sqnr_db']:.1f} dB" if found["sqnr_db"] is not None else "",
        f"{found['bytes'] / 1e6:.2f} MB",
        f"{found['seconds']:.1f} s" if "seconds" in found else "",
        f"{found['peak_bytes'] / 1e6:.0f} MB" if "peak_bytes" in found else "",
    ]


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
