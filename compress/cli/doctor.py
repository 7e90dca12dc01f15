"""`edge-compress doctor`: what runs here, and what is missing."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import click

# Runtime -> (distributions that lower to it and run it, the extra that brings them).
_RUNTIMES = {
    "torch": (("torch",), ""),
    "onnxruntime": (("onnx", "onnxscript", "onnxruntime"), "onnxruntime"),
    "litert": (("litert-torch", "ai-edge-quantizer", "ai-edge-litert"), "litert"),
    "executorch": (("executorch",), "executorch"),
}


@dataclass(frozen=True)
class Finding:
    """Whether a runtime works here: versions of its packages, and what to do if it does not."""

    runtime: str
    works: bool
    packages: Mapping[str, str]
    why_not: str = ""
    remedy: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def command(as_json: bool) -> int:
    """Say which runtimes run here, with versions and CPU features, and the one command that adds each other."""
    from compress.bench.environment import environment

    findings = [examine(name) for name in _RUNTIMES]
    machine = environment(())
    if as_json:
        plain = {"runtimes": [asdict(item) for item in findings], "machine": dict(machine.machine)}
        click.echo(json.dumps(plain, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from compress.report.numbers import format_bytes

    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("runtime", "runs here", "packages"):
        table.add_column(column, overflow="fold")
    for item in findings:
        versions = ", ".join(f"{name} {version}" for name, version in item.packages.items())
        # Text, not markup: the brackets of an extra are no style.
        table.add_row(
            item.runtime,
            "yes" if item.works else "no",
            Text(versions if item.works else f"{item.why_not}: {item.remedy}"),
        )
    console.print(table)
    console.print()
    for name in ("cpu", "features", "cores", "governor", "memory_bytes", "kernel", "python"):
        value = machine.machine.get(name)
        if value not in (None, "", [], ()):
            shown = ", ".join(value) if isinstance(value, list | tuple) else str(value)
            if name == "memory_bytes":
                name, shown = "memory", format_bytes(value)
            console.print(f"{name}: {shown}", highlight=False, markup=False)
    for warning in machine.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False)
    return 0


def examine(runtime: str) -> Finding:
    """Starts the runtime's empty worker: installed is not the same as working."""
    distributions, extra = _RUNTIMES[runtime]
    packages: dict[str, str] = {}
    missing = []
    for name in distributions:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    name = f"edge-compress[{extra}]" if extra else "edge-compress"
    if missing:
        return Finding(runtime, False, packages, f"not installed: {', '.join(missing)}", f"pip install '{name}'")
    if runtime == "torch":
        return Finding(runtime, True, packages)
    from compress.errors import CompressError
    from compress.hosts.calls import ask
    from compress.hosts.local import LocalHost

    try:
        ask(LocalHost(), {"action": "empty", "runtime": runtime}, timeout_s=60)
    except CompressError as error:
        return Finding(runtime, False, packages, error.message, f"pip install --force-reinstall '{name}'")
    return Finding(runtime, True, packages)
