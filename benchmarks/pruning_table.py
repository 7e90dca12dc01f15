"""The tables of the pruning benchmark in README.md, from the figures that a run left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.store.atomic import write_atomic

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- pruning: written by pruning.py -->", "<!-- /pruning -->"
RUNTIMES = {"onnxruntime": "ORT", "litert": "LiteRT"}


def write_table(kept: Mapping[str, Any]) -> str:
    """Writes the tables between their marks in README.md, and returns them."""
    text = "\n".join(lines(kept))
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, behind = rest.partition(END)
    write_atomic(README, f"{before}{BEGIN}\n{text}\n{END}{behind}".encode())
    return text


def lines(kept: Mapping[str, Any]) -> Iterator[str]:
    """Yields Markdown."""
    settings, machine = kept["settings"], kept["environment"]["machine"]
    packages = kept["environment"]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    yield f"Ratio {settings['ratio']:g} of every group, widths in multiples of {settings['round_to']}, one thread,"
    yield "seconds of processor time."
    yield f"{machine['cpu']}; {versions}."
    yield ""
    yield "| model | tool | groups | export + analysis, s | multiply-adds left | parameters left | ORT | LiteRT |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, found in kept["models"].items():
        if name != "fashion_items":
            yield from _model(name, found)
    if "fashion_items" in kept["models"]:
        yield from _quality(kept["models"]["fashion_items"])


def _model(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    original = found.get("original", {})
    for tool in ("ours", "peer"):
        side = found.get(tool, {})
        shown = "edge-compress" if tool == "ours" else "Torch-Pruning"
        exported = f"{original['export_s']:.1f} + " if tool == "ours" and "export_s" in original else ""
        analysed = f"{exported}{side['analysis_s']:.2f}" if "analysis_s" in side else ""
        cells = [name if tool == "ours" else "", shown, str(side.get("groups", "")), analysed]
        if "error" in side:
            yield "| " + " | ".join([*cells, f"fails: {_plain(side['error'])}", "", "", ""]) + " |"
            continue
        cells += [f"{side[key] / original[key]:.1%}" for key in ("macs", "parameters")]
        cells += [_ratio(found["latency"].get(runtime, {}), f"{tool} / original") for runtime in RUNTIMES]
        yield "| " + " | ".join(cells) + " |"
    if any("ours / peer" in part for part in found.get("latency", {}).values()):
        cells = [_ratio(found["latency"].get(runtime, {}), "ours / peer") for runtime in RUNTIMES]
        yield "| " + " | ".join(["", "ours / peer", "", "", "", "", *cells]) + " |"


def _ratio(found: Mapping[str, Any], key: str) -> str:
    if "error" in found:
        return f"fails: {_plain(found['error'])}"
    return _interval(found[key]) if key in found else "not timed"


def _interval(found: Mapping[str, Any]) -> str:
    low, high = found["interval"] or (float("nan"),) * 2
    return f"{found['ratio']:.2f}× [{low:.2f}, {high:.2f}]"


def _quality(found: Mapping[str, Any]) -> Iterator[str]:
    settings = found["settings"]
    yield ""
    yield (
        f"Fashion-MNIST MobileNetV2: batch statistics from {settings['statistics_rows']} calibration rows, then"
        f" {settings['epochs']} epoch(s) on {settings['train_rows']} training rows, the same for every candidate;"
        f" accuracy on {settings['test_rows']} test rows, {found['original']['accuracy']:.1%} before. Rows that say"
        " 'beside the peer' are ratios and differences to the peer's model above them, with 95 % intervals."
    )
    yield ""
    yield "| pruned by | goal | multiply-adds left | ORT | LiteRT | accuracy, before recovery | accuracy, after |"
    yield "|---|---|---|---|---|---|---|"
    for point in found["points"]:
        goal = f"ratio {point['ratio']:g}, {point['peer']}"
        if "figures" in point:
            yield _row("Torch-Pruning", goal, point["figures"])
        else:
            yield f"| Torch-Pruning | {goal} | fails: {_plain(point['error'])} | | | | |"
        for label, figures in point["ours"].items():
            if "error" in figures:
                yield f"| edge-compress | {label} | fails: {_plain(figures['error'])} | | | | |"
                continue
            yield _row("edge-compress", label, figures)
            if "beside_peer" in figures:
                beside = figures["beside_peer"]
                times = [_interval(beside["latency"][name]) if name in beside["latency"] else "" for name in RUNTIMES]
                low, high = beside["accuracy_interval"]
                gain = f"{beside['accuracy_difference']:+.1%} [{low:+.1%}, {high:+.1%}]"
                yield f"| | … beside the peer | | {times[0]} | {times[1]} | | {gain} |"


def _row(tool: str, goal: str, figures: Mapping[str, Any]) -> str:
    times = [_interval(figures["latency"][name]) for name in RUNTIMES]
    accuracies = [f"{figures[key]:.1%}" for key in ("accuracy_before", "accuracy")]
    return "| " + " | ".join([tool, goal, f"{figures['macs_share']:.1%}", *times, *accuracies]) + " |"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:180]
