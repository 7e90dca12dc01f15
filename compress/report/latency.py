"""What `edge-compress bench` found, in the terminal and as a picture."""

from __future__ import annotations

from io import BytesIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.bench.findings import NO_INTERVAL, ArtifactFindings, BenchFindings
from compress.registry import require
from compress.report.numbers import (
    MISSING,
    format_bytes,
    format_ms,
    format_ratio,
    format_ratio_interval,
    format_share,
    format_significant,
)
from compress.report.text import first_line, plain

SHOWN_OPERATORS = 15
OTHER = "(between layers)"


def render_bench(found: BenchFindings, console: Console) -> None:
    """Prints the figures, the ratios, throughput, the slowest operators, and what disturbed them."""
    console.print(Text(f"{plain(found.target)} ({found.runtime}), rows: {plain(found.rows)}"), soft_wrap=True)
    console.print(_figures(found))
    _ratios(found, console)
    if any(len(item.throughput) > 1 for item in found.artifacts):
        console.print(_throughput(found))
    for item in found.artifacts:
        _operators(item, console)
    _by_layer(found, console)
    if any(item.latency is not None and item.latency.p99_ms is None for item in found.artifacts):
        console.print(
            Text("p90 needs 64 single calls, p99 662 (of 20 microseconds or more): raise --seconds or --pairs.")
        )
    if any(item.sparse_ms is not None for item in found.artifacts):
        console.print(
            Text("rare: one call a second with cold caches, as an app sees it. memory: above the empty worker.")
        )
    machine = found.environment.machine
    packages = ", ".join(f"{name} {version}" for name, version in found.environment.packages.items())
    console.print(Text(f"machine: {machine.get('cpu')}, {machine.get('allowed_cores')} cores; {packages}"))
    for warning in found.environment.warnings:
        console.print(Text(f"warning: {warning}"), soft_wrap=True)


def ecdf_png(found: BenchFindings) -> bytes:
    """Returns a PNG: the share of samples below each time, a curve a file, a thin one for each process.

    Raises:
        MissingPackageError: If matplotlib is not installed.
    """
    require("matplotlib", why="--plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, item in enumerate(found.artifacts):
        if item.latency is None:
            continue
        colour = f"C{index % 10}"
        for samples in item.latency.samples:
            axes.ecdf(samples, color=colour, linewidth=0.5, alpha=0.4)
        every = [time for samples in item.latency.samples for time in samples]
        axes.ecdf(every, color=colour, linewidth=2, label=plain(item.name))
    axes.set_xlabel(f"milliseconds a call on {plain(found.target)}")
    axes.set_ylabel("share of samples")
    axes.set_xscale("log")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _figures(found: BenchFindings) -> Table:
    table = _table("file", "size", "load", "first", "p50", "p90", "p99", "rare", "memory")
    for item in found.artifacts:
        times = item.latency
        table.add_row(
            Text(plain(item.name)),
            format_bytes(item.size_bytes),
            format_ms(times.load_ms if times else None),
            format_ms(times.first_ms if times else None),
            format_ms(times.median_ms if times else None),
            format_ms(times.p90_ms if times else None),
            format_ms(times.p99_ms if times else None),
            format_ms(item.sparse_ms),
            format_bytes(item.memory.above_empty_bytes if item.memory else None),
        )
    return table


def _ratios(found: BenchFindings, console: Console) -> None:
    for item in found.artifacts:
        comparison = item.latency.comparison if item.latency else None
        if comparison is not None:
            known = comparison.interval.high < NO_INTERVAL
            interval = format_ratio_interval(comparison.interval) if known else "(no interval yet)"
            text = (
                f"{plain(item.name)}: {format_ratio(comparison.ratio)} {interval} of"
                f" {plain(comparison.baseline)}: {comparison.verdict} ({comparison.pairs} pairs)"
            )
            console.print(Text(text), soft_wrap=True)
        if item.error:
            console.print(Text(f"{plain(item.name)}: not measured: {first_line(item.error)}"), style="red")


def _throughput(found: BenchFindings) -> Table:
    places = [(item.batch, item.threads) for item in found.artifacts[0].throughput]
    table = _table("rows a second", *(f"batch {batch}, {threads} thr." for batch, threads in places))
    for item in found.artifacts:
        rates = {(each.batch, each.threads): each.rows_per_s for each in item.throughput}
        table.add_row(Text(plain(item.name)), *(format_significant(rates.get(place), 3) for place in places))
    return table


def _operators(item: ArtifactFindings, console: Console) -> None:
    if item.profile_note:
        console.print(Text(f"{plain(item.name)}: {first_line(item.profile_note)}"), soft_wrap=True)
    if not item.operators:
        return
    total = sum(each.ms for each in item.operators)
    table = _table("operator", "kind", "layer", "time", "share", text=3)
    slowest = sorted(item.operators, key=lambda each: -each.ms)
    for each in slowest[:SHOWN_OPERATORS]:
        share = format_share(each.ms / total) if total else MISSING
        texts = (Text(plain(each.name)), Text(plain(each.operator)), Text(plain(each.layer) or MISSING))
        table.add_row(*texts, format_ms(each.ms), share)
    console.print(Text(f"{plain(item.name)}: {len(item.operators)} operators, {format_ms(total)} a call in all"))
    console.print(table)
    if len(slowest) > SHOWN_OPERATORS:
        rest = sum(each.ms for each in slowest[SHOWN_OPERATORS:])
        console.print(Text(f"and {len(slowest) - SHOWN_OPERATORS} more, {format_ms(rest)} (--json has all)"))


def _by_layer(found: BenchFindings, console: Console) -> None:
    """Layers of the Model beside each other in every file whose operators are joined to them."""
    times: dict[str, dict[str, float]] = {}
    for item in found.artifacts:
        for each in item.operators:
            if any(other.layer for other in item.operators):
                layer = times.setdefault(each.layer or OTHER, {})
                layer[item.name] = layer.get(item.name, 0.0) + each.ms
    names = [item.name for item in found.artifacts if any(item.name in row for row in times.values())]
    if len(names) < 2:
        return
    table = _table("layer of the Model", *(plain(name) for name in names))
    slowest = sorted(times, key=lambda layer: -max(times[layer].values()))
    for name in slowest[:SHOWN_OPERATORS]:
        table.add_row(Text(plain(name)), *(format_ms(times[name].get(file)) for file in names))
    console.print(table)
    if len(slowest) > SHOWN_OPERATORS:
        console.print(Text(f"and {len(slowest) - SHOWN_OPERATORS} more layers (--json has all operators)"))


def _table(*columns: str, text: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(columns):
        width = 12 if place == 0 else None
        table.add_column(name, justify="left" if place < text else "right", overflow="fold", min_width=width)
    return table
