"""`edge-compress doctor`: what runs here, and what is missing."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click

# Runtime -> (distributions that lower to it and run it, the extra that brings them).
_RUNTIMES = {
    "torch": (("torch",), ""),
    "onnxruntime": (("onnx", "onnxscript", "onnxruntime"), "onnxruntime"),
    "litert": (("litert-torch", "ai-edge-quantizer", "ai-edge-litert"), "litert"),
    "executorch": (("executorch", "torchao"), "executorch"),
}


@dataclass(frozen=True)
class Finding:
    """Whether a runtime works here: versions of its packages, and what to do if it does not."""

    runtime: str
    works: bool
    packages: Mapping[str, str]
    why_not: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Emulated:
    """Whether a processor can be emulated here; else why not, and the command that changes it."""

    processor: str
    title: str
    ready: bool
    why_not: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Reached:
    """Whether a target's runtime answers on its host: what the host is, the runtime's version there, or why not."""

    target: str
    runtime: str
    works: bool
    machine: str = ""
    version: str = ""
    why_not: str = ""
    remedy: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
@click.option(
    "--setup",
    type=click.Choice(["emulated"]),
    help="First fetch what emulated processors need into the cache folder; nothing is installed.",
)
@click.option(
    "--sources",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --setup: a sources.list for apt instead of the machine's.",
)
@click.option(
    "--target", "targets", multiple=True, metavar="NAME", help="Also ask the host of this target; repeatable."
)
def command(as_json: bool, setup: str | None, sources: Path | None, targets: tuple[str, ...]) -> int:
    """Say which runtimes run here, with versions and CPU features, and the one command that adds each other."""
    from compress.bench.environment import environment

    if setup is not None:
        _set_up(sources)
    elif sources is not None:
        raise click.UsageError("--sources belongs to --setup")
    findings = [examine(name) for name in _RUNTIMES]
    processors = emulation()
    reached = [reach(name) for name in targets]
    machine = environment(())
    if as_json:
        plain = {
            "runtimes": [asdict(item) for item in findings],
            "emulated": [asdict(item) for item in processors],
            "targets": [asdict(item) for item in reached],
            "machine": dict(machine.machine),
        }
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
    table = Table(box=None, pad_edge=False)
    for column in ("processor", "emulated here", ""):
        table.add_column(column, overflow="fold", no_wrap=column == "processor")
    for one in processors:
        table.add_row(
            one.processor,
            "yes" if one.ready else "no",
            Text(one.title if one.ready else f"{one.why_not}: {one.remedy}"),
        )
    console.print(table)
    console.print()
    for there in reached:
        said = (
            f"{there.machine}, {there.runtime} {there.version}"
            if there.works
            else f"no: {there.why_not} {there.remedy}"
        )
        console.print(f"{there.target}: {said}", highlight=False, markup=False, soft_wrap=True)
    if reached:
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


def emulation() -> list[Emulated]:
    """Looks for what each processor's emulation needs; nothing is started there."""
    from compress.errors import WorkerError
    from compress.hosts.emulation import emulation_folder, find_emulation, installed_runtimes
    from compress.processors import emulated

    folder, found = emulation_folder(), []
    for processor in emulated():
        try:
            for runtime in (None, *installed_runtimes()):
                find_emulation(processor, folder, runtime)
            found.append(Emulated(processor.name, processor.title, True))
        except WorkerError as error:
            found.append(Emulated(processor.name, processor.title, False, error.message, error.hint))
    return found


def reach(name: str) -> Reached:
    """Starts the empty worker of a target's runtime on its host.

    Raises:
        RecipeError: If there is no such target, or its file is wrong.
    """
    from compress.errors import WorkerError
    from compress.hosts import open_host
    from compress.hosts.calls import ask
    from compress.target import load_target

    target = load_target(name, Path())
    host = open_host(target)
    try:
        answer = ask(host, {"action": "empty", "runtime": target.runtime}, timeout_s=120)
    except WorkerError as error:
        return Reached(target.name, target.runtime, False, why_not=f"{error.message}.", remedy=error.hint)
    return Reached(target.name, target.runtime, True, host.machine or "this machine", answer["version"])


def _set_up(sources: Path | None) -> None:
    from compress.hosts.emulation import emulation_folder
    from compress.hosts.prepare import prepare

    folder = emulation_folder()
    # Standard output is the answer, which may be JSON.
    click.echo(f"setting up emulation in {folder}", err=True)
    prepare(folder, lambda line: click.echo(f"  {line}", err=True), sources)


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
