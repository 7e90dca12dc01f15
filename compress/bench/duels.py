"""Two artifacts timed against each other: in turns within one process, or each in its own where they must be apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from compress.bench.race import Sample
from compress.hosts.base import Host
from compress.hosts.calls import ask

# Up to this many voluntary switches a call, a thread computes and is only interrupted.
MAX_WAITS = 0.05
DUEL_S = 0.4


@dataclass(frozen=True)
class Fighter:
    """An artifact with the threads that it runs on, and its rows where they are not those of the ring."""

    path: Path
    threads: int
    inputs: Path | None = None


@dataclass(frozen=True)
class Ring:
    """What both sides have in common: runtime, rows, batch, and how long one sample lasts."""

    runtime: str
    inputs: Path
    batch: int
    timeout_s: float
    seconds: float = DUEL_S


def in_turns(host: Host, baseline: Fighter, candidate: Fighter, ring: Ring) -> Callable[[bool], Sample]:
    """Returns how a sample is taken: one process opens both and times them in turns.

    The process is the sample. Its ratio is the median over quads of turns; see `compress.worker.duel`. Where each side
    runs on one thread and never waits, processor time is compared, which leaves out what other processes took;
    where a side waits, for threads or a device, the monotonic clock is.
    """

    def take(flip: bool) -> Sample:
        job = _job("duel", baseline, ring) | {
            "rival": str(candidate.path.resolve()),
            "rival_threads": candidate.threads,
            "flip": flip,
        }
        if candidate.inputs is not None:
            job["rival_inputs"] = str(candidate.inputs)
        answer = ask(host, job, ring.timeout_s)
        clock = _clock(answer, max(baseline.threads, candidate.threads))
        ours, theirs = answer[f"artifact_{clock}"], answer[f"rival_{clock}"]
        logs = [math.log(theirs[at] / ours[at]) for at in range(len(ours)) if ours[at] > 0 and theirs[at] > 0]
        wall = (median(answer["artifact_wall_ms"]), median(answer["rival_wall_ms"]))
        load = math.log(answer["rival_load_ms"] / answer["artifact_load_ms"])
        named = "processor" if clock == "cpu_ms" else "wall"
        return Sample(median(logs), *wall, named, load, (median(ours), median(theirs)))

    return take


def apart(hosts: tuple[Host, Host], baseline: Fighter, candidate: Fighter, ring: Ring) -> Callable[[bool], Sample]:
    """Returns how a sample is taken where one process cannot hold both: a process each, one after the other.

    Much less sharp than `in_turns`: whatever disturbs one of the two processes alone is in the ratio.
    """

    def take(flip: bool) -> Sample:
        sides = {0: (hosts[0], baseline), 1: (hosts[1], candidate)}
        answers = {side: _against_itself(*sides[side], ring) for side in ((1, 0) if flip else (0, 1))}
        threads = max(baseline.threads, candidate.threads)
        clock = "wall_ms" if "wall_ms" in {_clock(answer, threads) for answer in answers.values()} else "cpu_ms"
        times = [_both_medians(answers[side], clock) for side in (0, 1)]
        wall = [_both_medians(answers[side], "wall_ms") for side in (0, 1)]
        loads = [answers[side]["artifact_load_ms"] + answers[side]["rival_load_ms"] for side in (0, 1)]
        named = "processor" if clock == "cpu_ms" else "wall"
        return Sample(math.log(times[1] / times[0]), wall[0], wall[1], named, math.log(loads[1] / loads[0]))

    return take


def _against_itself(host: Host, fighter: Fighter, ring: Ring) -> dict[str, Any]:
    """A duel of an artifact with itself: the times of one process, on both clocks."""
    job = _job("duel", fighter, ring) | {"rival": str(fighter.path.resolve()), "rival_threads": fighter.threads}
    return ask(host, job, ring.timeout_s)


def _both_medians(answer: Mapping[str, Any], clock: str) -> float:
    return float(median([*answer[f"artifact_{clock}"], *answer[f"rival_{clock}"]]))


def median_ms(host: Host, fighter: Fighter, ring: Ring) -> float:
    """Returns the median of a call in one process of its own, by the monotonic clock."""
    job = _job("latency", fighter, ring) | {"warmup_s": ring.seconds / 4}
    return float(median(ask(host, job, ring.timeout_s)["samples_ms"]))


def _job(action: str, fighter: Fighter, ring: Ring) -> dict[str, Any]:
    return {
        "action": action,
        "runtime": ring.runtime,
        "artifact": str(fighter.path.resolve()),
        "inputs": str(fighter.inputs or ring.inputs),
        "threads": fighter.threads,
        "batch": ring.batch,
        "seconds": ring.seconds,
    }


def _clock(answer: Mapping[str, Any], threads: int) -> str:
    waits = max(answer["artifact_waits"], answer["rival_waits"])
    return "cpu_ms" if threads == 1 and waits <= MAX_WAITS else "wall_ms"
