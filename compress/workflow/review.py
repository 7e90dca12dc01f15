"""The review of every candidate of a target beside its baseline, and the files that go with it."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import compress
from compress.errors import WorkerError
from compress.evaluate.decisions import decide_rows
from compress.evaluate.explain import compare_attributions
from compress.evaluate.review import LEVEL, Asked, review_task
from compress.evaluate.robustness import Disturbed, compare_disturbed, disturb
from compress.evaluate.scores import probabilities
from compress.evidence import from_json, to_json
from compress.hosts.calls import run_outputs
from compress.recipe import Recipe
from compress.review import Explanation, Review, Robustness
from compress.workflow.arrays import Arrays
from compress.workflow.build import Built
from compress.workflow.holdout import Holdout, Question

# Asks a model about rows; raises WorkerError where its runtime refuses them.
Ask = Callable[[Arrays], Arrays]

if TYPE_CHECKING:
    from compress.workflow.measure import Site


def review_candidate(
    item: Built, baseline: Built, answers: Mapping[str, Arrays], site: Site, files: dict[str, bytes]
) -> tuple[Review, ...]:
    """Returns the review of every task of a candidate; a file of rows that flipped is added to `files`.

    Args:
        item: The candidate.
        baseline: What it stands beside.
        answers: Scheme -> outputs on the test rows.
        site: The target, its host, and what is asked.
        files: Path within the run's folder -> content.
    """
    before, after = answers[baseline.scheme], answers[item.scheme]
    name = f"flips.{site.target.name}.{item.scheme}.csv"
    step = site.key(
        "review",
        outputs=[item.sha, baseline.sha],
        rows=site.holdout.fingerprint,
        groups=site.holdout.subjects.digest,
        recipe=site.plan.recipe.model_dump(mode="json", include={"evaluate", "explain", "seed"}),
        questions=[(item.name, item.kind, item.output, item.link, item.cutoff) for item in site.holdout.questions],
        resamples=site.plan.recipe.measure.resamples,
        code=_code_digest(),
    )
    kept = site.cache.get(step)
    if kept is not None:
        reviews = tuple(from_json(Review, text, step) for text in kept["reviews"])
        if "flips" in kept["blobs"]:
            files[name] = site.cache.require(kept["blobs"]["flips"])
        return reviews
    whole = Sides(before, after, _asking(baseline, site), _asking(item, site))
    reviews = review_all(site.holdout, site.plan.recipe, whole, f"{site.target.name}: {item.scheme}")
    flips = b"" if item is baseline else flipped_rows(site.holdout, before, after)
    blobs = {}
    if flips:
        files[name] = flips
        blobs["flips"] = flips
        reviews = tuple(replace(review, flips_file=name if review.kind != "regression" else "") for review in reviews)
    site.cache.put(step, {"reviews": [to_json(review) for review in reviews]}, **blobs)
    return reviews


def flipped_rows(
    holdout: Holdout, before: Mapping[str, NDArray[np.generic]], after: Mapping[str, NDArray[np.generic]]
) -> bytes:
    """Returns the CSV of rows whose decision changed, for a person to look at; empty where no task decides.

    Columns: task, id, both scores, both decisions, label, and every sensitive column and segment. A score is the
    probability of the positive class, or of the class decided for; a decision is 0 or 1, or the number of a class.
    """
    subjects = holdout.subjects
    named = [groups for groups in subjects.segments if groups.column not in subjects.sensitive]
    deciding = [question for question in holdout.questions if question.kind != "regression"]
    if not deciding:
        return b""
    lines: list[list[object]] = []
    for question in deciding:
        where = f"output {question.output!r}"
        outputs = before[question.output], after[question.output]
        decided = [np.asarray(decide_rows(each, question.decision, where)) for each in outputs]
        scores = [_scores(each, question) for each in outputs]
        for row in np.flatnonzero(decided[0] != decided[1]).tolist():
            lines.append(
                [
                    question.name,
                    subjects.ids[row],
                    *(f"{score[row]:.9g}" for score in scores),
                    *(int(each[row]) for each in decided),
                    question.labels[row],
                    *(values[row] for values in subjects.sensitive.values()),
                    *(groups.names[groups.codes[row]] for groups in named),
                ]
            )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heading = ["task", "id", "baseline_score", "candidate_score", "baseline_decision", "candidate_decision", "label"]
    writer.writerow([*heading, *subjects.sensitive, *(groups.column for groups in named)])
    writer.writerows(lines)
    return buffer.getvalue().encode()


def _scores(outputs: NDArray[np.generic], question: Question) -> NDArray[np.float64]:
    if question.kind == "binary":
        return probabilities(outputs, question.link or "logit", f"output {question.output!r}")
    largest: NDArray[np.float64] = np.asarray(outputs, dtype=np.float64).max(axis=1)
    return largest


@dataclass(frozen=True, eq=False)
class Sides:
    """Baseline and candidate: what they answer to the test rows, and how to ask them more; None where nobody can."""

    before: Arrays
    after: Arrays
    ask_before: Ask | None = None
    ask_after: Ask | None = None


def review_all(holdout: Holdout, recipe: Recipe, sides: Sides, where: str) -> tuple[Review, ...]:
    """Returns the review of every task.

    Args:
        holdout: The test rows and what is asked of them.
        recipe: What is looked at.
        sides: The answers of both.
        where: Names the candidate in an error message.
    """
    more = _More(holdout, recipe, sides)
    found = []
    for question in holdout.questions:
        asked = Asked(
            question.name,
            question.kind,
            question.link,
            question.cutoff,
            holdout.subjects.segments,
            holdout.subjects.periods,
            holdout.class_names,
        )
        review = review_task(
            question.labels,
            sides.before[question.output],
            sides.after[question.output],
            asked,
            recipe.evaluate,
            resamples=recipe.measure.resamples,
            seed=recipe.seed,
            where=f"{where}: output {question.output!r}",
        )
        found.append(replace(review, robustness=more.robustness(question), explanations=more.explanations(question)))
    return tuple(found)


class _More:
    """What needs the models themselves: their answers to disturbed rows, and to the probes of explanations."""

    def __init__(self, holdout: Holdout, recipe: Recipe, sides: Sides) -> None:
        self._holdout = holdout
        self._recipe = recipe
        self._answers = (sides.before, sides.after)
        self._asks = (sides.ask_before, sides.ask_after)

    @cached_property
    def _disturbances(self) -> tuple[Disturbed, ...]:
        """The rows as they are, then disturbed in each way; none where no input can be."""
        holdout, recipe = self._holdout, self._recipe
        rows = holdout.disturbed_rows
        inputs = {name: array[rows] for name, array in holdout.inputs.items()}
        found = disturb(inputs, noise=recipe.evaluate.noise, seed=recipe.seed) if rows.size else ()
        return (Disturbed("", inputs), *found) if found else ()

    @cached_property
    def _asked(self) -> list[list[Arrays | None]]:
        """What both answer to each disturbance, and to the probes at the end; None where the runtime refuses."""
        explained = self._holdout.explained
        pieces = [item.inputs for item in self._disturbances]
        pieces += [explained.probes.inputs] if explained else []
        return [_answers(ask, pieces) for ask in self._asks if ask is not None] if pieces else []

    def robustness(self, question: Question) -> tuple[Robustness, ...]:
        """What each disturbance does to a task."""
        if None in self._asks or not self._disturbances:
            return ()
        answers = [
            [None if got is None else _numbers(got[question.output], question) for got in of_model]
            for of_model in self._asked
        ]
        undisturbed = answers[0][0], answers[1][0]
        if undisturbed[0] is None or undisturbed[1] is None:
            return ()
        found = []
        for index, item in enumerate(self._disturbances[1:], start=1):
            pair = answers[0][index], answers[1][index]
            refused = [name for name, got in zip(("baseline", "candidate"), pair, strict=True) if got is None]
            found.append(
                compare_disturbed(
                    item.name,
                    (undisturbed[0], undisturbed[1]),
                    pair,
                    question.decision,
                    note=f"the runtime refused these rows: {', '.join(refused)}" if refused else "",
                )
            )
        return tuple(found)

    def explanations(self, question: Question) -> tuple[Explanation, ...]:
        """Attributions of both, where the recipe asks for them; of several classes, of the one the baseline takes."""
        recipe, explained = self._recipe, self._holdout.explained
        if recipe.explain is None or explained is None or None in self._asks:
            return ()
        got = [of_model[-1] for of_model in self._asked]
        if got[0] is None or got[1] is None:
            return ()
        outputs = [_numbers(each[question.output], question) for each in (got[0], got[1])]
        if question.kind == "multiclass":
            taken = np.asarray(self._answers[0][question.output])[explained.rows].argmax(axis=1)
            of_probes = np.repeat(taken, len(outputs[0]) // len(taken))
            outputs = [each[np.arange(len(each)), of_probes] for each in outputs]
        values = [explained.probes.attributions(each) for each in outputs]
        favourable = 0 if recipe.evaluate.favourable == "negative" else 1
        declined = np.zeros(explained.rows.size, dtype=np.bool_)
        if question.kind == "binary":
            decided = [
                decide_rows(answers[question.output][explained.rows], question.decision, "explain")
                for answers in self._answers
            ]
            declined = np.logical_and(*(np.asarray(each) != favourable for each in decided))
        return (
            compare_attributions(
                values[0],
                values[1],
                explained.features,
                towards_decline=1 if favourable == 0 else -1,
                declined=declined,
                top_k=recipe.explain.top_k,
                background_rows=recipe.explain.background,
                level=LEVEL,
                method=explained.probes.method,
            ),
        )


def _answers(ask: Ask, pieces: Sequence[Arrays]) -> list[Arrays | None]:
    """What a file answers to each of several sets of rows, in one worker; None where its runtime refuses a set."""
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    try:
        found = ask(joined)
    except WorkerError:
        return [_if_answered(ask, piece) for piece in pieces]
    ends = np.cumsum([len(next(iter(piece.values()))) for piece in pieces])[:-1]
    parts = {name: np.split(array, ends) for name, array in found.items()}
    return [{name: parts[name][index] for name in parts} for index in range(len(pieces))]


def _if_answered(ask: Ask, inputs: Arrays) -> Arrays | None:
    try:
        return ask(inputs)
    except WorkerError:
        return None


def _asking(built: Built, site: Site) -> Ask:
    """A function that asks a file of this run; the baseline is asked once for all candidates.

    One row a call: where ranges are found in each call, a row out of range would change its neighbours' answers.
    """

    def ask(inputs: Arrays) -> Arrays:
        step = site.key("asked", artifact=built.sha, inputs=_digest(inputs))
        if step not in site.asked:
            site.asked[step] = run_outputs(
                site.host,
                site.target.runtime,
                site.cache.path(built.sha),
                inputs,
                threads=site.target.threads,
                batch=1,
                timeout_s=site.timeout_s,
            )
        return site.asked[step]

    return ask


def _digest(inputs: Arrays) -> str:
    hashed = hashlib.sha256()
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        hashed.update(f"{name}:{array.dtype}:{array.shape}".encode() + array.tobytes())
    return hashed.hexdigest()


def _numbers(outputs: NDArray[np.generic], question: Question) -> NDArray[np.float64]:
    """Raw outputs as `[rows, classes]` of a multi-class task, else as `[rows]`."""
    values = np.asarray(outputs, dtype=np.float64)
    return values if question.kind == "multiclass" else values.reshape(values.shape[0], -1)[:, 0]


@functools.cache
def _code_digest() -> str:
    """sha256 over the source that makes a review: another version finds other figures."""
    root = Path(compress.__file__).parent
    hashed = hashlib.sha256()
    for path in (*sorted((root / "evaluate").glob("*.py")), root / "review.py", Path(__file__)):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()
