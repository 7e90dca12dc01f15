"""The check: every baseline beside what would ship now, measured together, until it is told or the time is spent."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from compress.bench.duels import Fighter, Ring, apart, in_turns
from compress.bench.environment import environment
from compress.bench.race import Row, Sample, race
from compress.bench.sequential import ALPHA, Judgement, judge_family
from compress.bench.verdicts import CheckResult, CheckRow, Rule, causes
from compress.errors import CompressError, StoreError, WorkerError
from compress.evidence import Environment
from compress.hosts import Host, timing_host
from compress.hosts.local import LocalHost
from compress.target import CheckTolerances, Target, load_target
from compress.workflow.baseline import Baselines, Entry
from compress.workflow.check_rules import answers, rules, runtime_version
from compress.workflow.figures import TIMEOUT_S, Subject, measure_figures
from compress.workflow.machines import environment_at
from compress.workflow.progress import Progress
from compress.workflow.save_baseline import packages
from compress.workflow.shipped import Shipped, find_shipped


@dataclass(frozen=True)
class CheckOptions:
    """What is asked.

    Attributes:
        against: The baseline's name.
        budget_s: Seconds of timing per row.
        candidates: Model -> file that takes the place of what ships in the recorded folder.
        pythons: Interpreters of the baseline and the candidate: the baseline's artifact is then compared with itself.
        tolerance: Of latency, over the targets' own; None for these.
        alpha: Chance of a false SLOWER or FASTER in the whole check.
        timeout_s: After which a worker counts as hung.
        seed: Of who goes first.
    """

    against: str = "main"
    budget_s: float = 60.0
    candidates: Mapping[str, Path] = field(default_factory=dict)
    pythons: tuple[str, str] | None = None
    tolerance: float | None = None
    alpha: float = ALPHA
    timeout_s: float = TIMEOUT_S
    seed: int = 0


@dataclass
class _Bout:
    """One row on its way: what is compared, then what was measured."""

    row: CheckRow
    entry: Entry
    tolerances: CheckTolerances
    race: Row | None = None
    elsewhere: Environment | None = None

    def fail(self, error: CompressError) -> None:
        self.race = None
        self.row = replace(self.row, verdict="INCOMPARABLE", error=error.message, hint=error.hint)


def check(baselines: Baselines, options: CheckOptions, progress: Progress) -> CheckResult:
    """Compares everything that has a baseline of that name. An error of one row is that row's.

    Raises:
        StoreError: If a baseline file is damaged, a candidate is named that has no baseline, or another check is
            under way.
    """
    start = time.monotonic()
    with baselines.locked(), tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        bouts = _bouts(baselines, options)
        names = sorted({name for bout in bouts for name in packages(bout.entry.runtime)})
        machine = environment(names)
        for index, bout in enumerate(bouts):
            progress.step(f"opening both sides of {bout.row.name}")
            try:
                _open(bout, baselines, options, Path(folder) / f"rows{index}.npz")
                if options.pythons is None:
                    _note_changes(bout, bout.elsewhere or machine)
            except CompressError as error:
                bout.fail(error)
        _race([bout for bout in bouts if bout.race], options, progress)
        _judge([bout for bout in bouts if bout.race], options)
    return CheckResult(
        against=options.against,
        rows=tuple(bout.row for bout in bouts),
        alpha=options.alpha,
        seconds=round(time.monotonic() - start, 1),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment=machine,
    )


def _bouts(baselines: Baselines, options: CheckOptions) -> list[_Bout]:
    bouts = []
    for file in baselines.read():
        entry = file.baselines.get(options.against)
        if entry is not None:
            tolerances = CheckTolerances()
            row = CheckRow(file.model, file.target, entry.runtime, "UNKNOWN", options.tolerance or tolerances.latency)
            bouts.append(_Bout(row, entry, tolerances))
    unknown = sorted(set(options.candidates) - {bout.row.model for bout in bouts})
    if unknown:
        raise StoreError(
            f"--candidate {unknown[0]}: no baseline {options.against!r} is of that model",
            f"models with one: {', '.join(sorted({bout.row.model for bout in bouts})) or 'none'}.",
        )
    return bouts


def _open(bout: _Bout, baselines: Baselines, options: CheckOptions, rows: Path) -> None:
    """Finds both files, takes the figures of both, and says how a sample is taken."""
    entry = bout.entry
    artifact, inputs = _stored(baselines, entry, options.against, bout.row)
    rows.write_bytes(inputs)
    notes: tuple[str, ...] = ()
    before = Subject(artifact, entry.runtime, entry.precision, entry.threads, entry.batch)
    if options.pythons is not None:
        hosts: tuple[Host, Host] = (LocalHost(python=options.pythons[0]), LocalHost(python=options.pythons[1]))
        after = before
        sha = entry.sha256
        # First of all: a Python that cannot run the worker is told at once.
        versions = [runtime_version(host, entry.runtime, options.timeout_s) for host in hosts]
        notes = (
            f"baseline in {entry.runtime} {versions[0]} ({options.pythons[0]}), candidate in {entry.runtime}"
            f" {versions[1]} ({options.pythons[1]}): a process each",
        )
    else:
        shipped = _candidate(bout, baselines, options)
        bout.tolerances = shipped.target.check
        host = timing_host(shipped.target)
        hosts = (host, host)
        if host.facts():
            bout.elsewhere = environment_at(host, entry.runtime, packages(entry.runtime))
        after = Subject(
            shipped.file.path, shipped.file.runtime, shipped.file.precision, shipped.target.threads, entry.batch
        )
        sha = shipped.file.sha256
        if entry.threads != after.threads:
            notes = (f"threads: {entry.threads} -> {after.threads}, as the target says now",)
        if host.machine:
            notes = (*notes, f"on {host.machine}")
    bout.row = replace(
        bout.row,
        tolerance=options.tolerance or bout.tolerances.latency,
        baseline_sha256=entry.sha256,
        candidate_sha256=sha,
        notes=notes,
    )
    figures = (
        measure_figures(hosts[0], before, rows, options.timeout_s),
        measure_figures(hosts[1], after, rows, options.timeout_s),
    )
    found = rules(*figures, bout.tolerances)
    bout.row = replace(bout.row, causes=causes(*figures), rules=found)
    if options.pythons is not None:
        rule = answers(hosts, before, rows, options.timeout_s)
        bout.row = replace(bout.row, rules=(rule, *found))
    elif sha == entry.sha256 and before.threads == after.threads:
        # The same bytes in the same runtime: timing them would compare luck with luck.
        bout.row = replace(
            bout.row, verdict="SAME", ratio=1.0, notes=("the same file, byte for byte: opened, not timed",)
        )
        return
    bout.race = Row(bout.row.name, bout.row.tolerance, _sampler(bout, (before, after), hosts, rows, options))


def _sampler(
    bout: _Bout, sides: tuple[Subject, Subject], hosts: tuple[Host, Host], rows: Path, options: CheckOptions
) -> Callable[[bool], Sample]:
    before, after = sides
    fighters = (Fighter(before.path, before.threads), Fighter(after.path, after.threads))
    ring = Ring(bout.entry.runtime, rows, bout.entry.batch, options.timeout_s)
    if options.pythons is not None:
        return apart(hosts, *fighters, ring)
    return in_turns(hosts[0], *fighters, ring)


def _stored(baselines: Baselines, entry: Entry, name: str, row: CheckRow) -> tuple[Path, bytes]:
    """The baseline's artifact and rows out of the store, their hashes recomputed."""
    inputs = baselines.store.blob(entry.inputs_sha256)
    if baselines.store.blob(entry.sha256) is None or inputs is None:
        what = "artifact" if inputs is not None else "artifact or its rows"
        raise StoreError(
            f"the {what} of the baseline {name!r} ({entry.file}, sha256 {entry.sha256[:12]}) is not in"
            f" {baselines.store.folder}",
            f"restore it: edge-compress baseline restore {name} --from FOLDER, where FOLDER holds that file"
            " (a cache, or the output of a run of the baseline's commit).",
        )
    return baselines.store.path(entry.sha256), inputs


def _candidate(bout: _Bout, baselines: Baselines, options: CheckOptions) -> Shipped:
    """What ships now for the row's model and target."""
    given = options.candidates.get(bout.row.model)
    source = given if given is not None else baselines.project / bout.entry.source
    if source.is_dir():
        found = [item for item in find_shipped(source) if item.target.name == bout.row.target]
        if not found:
            raise StoreError(f"{source}: nothing ships on {bout.row.target} there", "see its report.md for the reason.")
        return found[0]
    if not source.exists():
        raise StoreError(
            f"{bout.entry.source}: there is no candidate", "run `edge-compress run` for its recipe, or name a file."
        )
    target = _target(bout, baselines)
    (shipped,) = find_shipped(source, target)
    return shipped


def _target(bout: _Bout, baselines: Baselines) -> Target:
    return load_target(bout.row.target, baselines.project)


def _note_changes(bout: _Bout, machine: Environment) -> None:
    """Says which packages moved since the baseline was saved: both sides ran in those of now."""
    moved = [
        f"{name} {bout.entry.packages[name]} -> {version}"
        for name, version in machine.packages.items()
        if bout.entry.packages.get(name, version) != version
    ]
    if moved:
        note = (
            f"since the baseline was saved: {', '.join(moved)}; both sides ran in the new one. To compare the two:"
            " --python-baseline OLD --python-candidate NEW"
        )
        bout.row = replace(bout.row, notes=(*bout.row.notes, note))


def _race(bouts: Sequence[_Bout], options: CheckOptions, progress: Progress) -> None:
    rows = [bout.race for bout in bouts if bout.race]
    if not rows:
        return
    progress.step(f"timing {len(rows)} in turns, at most {options.budget_s:g} s each")
    race(
        rows,
        alpha=options.alpha / 2,
        budget_s=options.budget_s * len(rows),
        seed=options.seed,
        told=progress.advance,
    )


def _judge(bouts: Sequence[_Bout], options: CheckOptions) -> None:
    """Half of alpha is for the latencies, half for the times to load."""
    latency = [bout.race.logs for bout in bouts if bout.race]
    loads = [[s.load_log_ratio or 0.0 for s in bout.race.samples] for bout in bouts if bout.race]
    times = judge_family(latency, [bout.row.tolerance for bout in bouts], options.alpha / 2) if bouts else []
    opening = judge_family(loads, [bout.tolerances.load for bout in bouts], options.alpha / 2) if bouts else []
    for bout, time_found, load_found in zip(bouts, times, opening, strict=True):
        if bout.race is None or bout.race.error:
            message = bout.race.error if bout.race else "not measured"
            head, _, hint = message.partition("\nHint: ")
            bout.fail(WorkerError(head, hint))
            continue
        samples = bout.race.samples
        bout.row = replace(
            bout.row,
            verdict=time_found.verdict,
            ratio=time_found.ratio,
            interval=time_found.interval,
            pairs=time_found.pairs,
            baseline_ms=median(sample.baseline_ms for sample in samples),
            candidate_ms=median(sample.candidate_ms for sample in samples),
            clock=samples[-1].clock,
            rules=(*bout.row.rules, _load_rule(load_found, bout.tolerances.load)),
        )


def _load_rule(found: Judgement, tolerance: float) -> Rule:
    shown = f" [{found.interval.low:.2f}, {found.interval.high:.2f}]" if found.interval else ""
    return Rule(
        "load time",
        1.0,
        found.ratio,
        tolerance,
        found.verdict == "SLOWER",
        f"{found.ratio:.2f}x{shown}: {found.verdict}",
    )
