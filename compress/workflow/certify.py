"""The parity certificate: the same file and the same rows once more in other places, and whether it may still ship.

Rows are asked as many at a time as `measure.batch` says, here and there alike: a runtime that finds integer ranges
while it runs takes them over all rows of a call, so that a row's answer depends on its neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.errors import CompressError, StoreError
from compress.evaluate.parity import parity
from compress.evidence import Candidate, Choice, Parity, Place, Verdict
from compress.hosts import Host, open_host
from compress.hosts.calls import run_outputs
from compress.store.cache import key
from compress.target import Target
from compress.workflow.arrays import Arrays, keep_arrays, kept_arrays
from compress.workflow.build import Built
from compress.workflow.machines import known_as
from compress.workflow.plan import Plan, versions
from compress.workflow.progress import Progress

if TYPE_CHECKING:
    from compress.workflow.measure import Site

Decide = Callable[[Sequence[Candidate]], tuple[dict[str, Verdict], Choice]]


def places(plan: Plan) -> tuple[Place, ...]:
    """Returns what the evidence says of the places of a plan."""
    return tuple(Place(item.name, item.host, item.cpu, open_host(item).machine) for item in plan.places)


def claimed(target: Target, plan: Plan) -> tuple[str, ...]:
    """Returns the places whose processors a target claims to be right on; elsewhere a difference is only reported."""
    return tuple(item.name for item in plan.places if target.cpu in ("any", item.cpu))


def certify(
    candidates: Sequence[Candidate],
    built: Sequence[Built],
    site: Site,
    decide: Decide,
    progress: Progress,
) -> tuple[list[Candidate], dict[str, Verdict], Choice]:
    """Checks what is to ship in every place, and decides anew until what ships was checked.

    Args:
        candidates: As measured.
        built: Their artifacts.
        site: The target, and what is asked.
        decide: Verdicts and choice for candidates.
        progress: Told what is happening.

    Returns:
        The candidates with what was found, their verdicts, and the choice.
    """
    items = {item.scheme: item for item in built}
    found = list(candidates)
    if site.plan.recipe.parity.artifacts == "all":
        found = [_checked(item, items[item.scheme], site, progress) for item in found]
        return found, *decide(found)
    verdicts, choice = decide(found)
    done: set[str] = set()
    while site.plan.places and choice.scheme is not None and choice.scheme not in done:
        done.add(choice.scheme)
        found = [
            _checked(item, items[item.scheme], site, progress) if item.scheme == choice.scheme else item
            for item in found
        ]
        verdicts, choice = decide(found)
    return found, verdicts, choice


def _checked(candidate: Candidate, item: Built, site: Site, progress: Progress) -> Candidate:
    if candidate.error:
        return candidate
    rows = spread(site.holdout.parity_rows, site.plan.recipe.parity.rows)
    rows_found: list[Parity] = []
    unchecked: list[tuple[str, str]] = []
    for place in site.plan.places:
        progress.step(f"{site.target.name}: asking {candidate.scheme} {len(rows)} rows on {place.name}")
        try:
            own = _ask(item, site.target, site.host, rows, site)
            rows_found += parity(
                own,
                _ask(item, place, open_host(place), rows, site),
                name=site.target.host,
                decisions={question.output: question.decision for question in site.holdout.questions},
                place=place.name,
            )
        except StoreError:
            raise
        except CompressError as error:
            unchecked.append((place.name, str(error)))
    return replace(candidate, parity=(*candidate.parity, *rows_found), unchecked=tuple(unchecked))


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Returns `count` of the rows, evenly over all of them; all where there are fewer."""
    if count >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def _ask(item: Built, place: Target, host: Host, rows: NDArray[np.int64], site: Site) -> Arrays:
    """What the artifact answers in a place."""
    batch = site.plan.recipe.measure.batch
    step = key(
        "elsewhere",
        host=place.host,
        machine=known_as(host, site.target.runtime) or site.machine,
        threads=place.threads,
        job=place.job_settings,
        batch=batch,
        artifact=item.sha,
        rows=site.holdout.fingerprint,
        chosen=hashlib.sha256(rows.tobytes()).hexdigest(),
        versions=versions(site.target.runtime),
    )
    kept = kept_arrays(site.cache, step)
    if kept is not None:
        return kept
    outputs = run_outputs(
        host,
        site.target.runtime,
        site.cache.path(item.sha),
        {name: array[rows] for name, array in site.holdout.inputs.items()},
        threads=place.threads,
        batch=batch,
        timeout_s=site.plan.recipe.parity.timeout_s,
    )
    keep_arrays(site.cache, step, outputs)
    return outputs
