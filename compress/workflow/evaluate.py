"""Any two models or score files beside each other on a recipe's test rows, judged by the recipe's policy."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import compress
from compress.bench.environment import environment
from compress.data.base import Dataset
from compress.errors import ModelError
from compress.evaluate.decisions import decide_rows
from compress.evaluate.parity import parity
from compress.evaluate.scores import Link, TaskKind, class_probabilities, probabilities
from compress.evaluate.tasks import compare_task, find_link
from compress.evidence import (
    Candidate,
    Choice,
    DataInfo,
    Evidence,
    Metric,
    ModelInfo,
    TargetEvidence,
    Verdict,
)
from compress.gate import EXIT_CODES, judge
from compress.hosts import Host, answering_host, open_host
from compress.hosts.local import LocalHost
from compress.recipe import Recipe
from compress.store.cache import digest
from compress.target import Budgets, Target
from compress.workflow.answered import Answered, answer, answer_key
from compress.workflow.arrays import Arrays
from compress.workflow.build import class_names
from compress.workflow.costs import BOUNDS, measure_costs, stated_bounds, target_of
from compress.workflow.explained import explain_rows
from compress.workflow.files import open_files
from compress.workflow.holdout import Holdout, Question, only_label
from compress.workflow.machines import unanswered
from compress.workflow.plan import PACKAGES, Plan, load_rows
from compress.workflow.progress import Progress
from compress.workflow.review import Ask, Sides, flipped_rows, review_all
from compress.workflow.score_file import is_score_file
from compress.workflow.subjects import find_leaks, take_subjects

_UNKNOWN_MODEL = ModelInfo(digest="", parameters=0, macs=0, bytes=0, layers=0, inputs=(), outputs=())
_NOT_ASKED = (
    "attributions and disturbed inputs were not looked at: both files must be models, and give the same kind of output"
)


@dataclass(frozen=True)
class Evaluation:
    """What came out: the evidence (baseline first, then the candidate), the exit code, the rows that flipped as CSV.

    `data` describes the rows behind it.
    """

    evidence: TargetEvidence
    exit_code: int
    flips: bytes
    data: DataInfo

    @property
    def verdict(self) -> Verdict:
        """The verdict on the candidate."""
        return self.evidence.verdicts[self.evidence.candidates[1].scheme]


def evaluate(
    recipe: Recipe,
    folder: Path,
    where: str,
    candidate: Path,
    baseline: Path,
    target: Target | None,
    progress: Progress,
) -> Evaluation:
    """Judges a candidate beside a baseline on the test rows of the recipe's data.

    Latency and memory are measured where the policy or the target bounds them, both files interleaved.

    Args:
        recipe: Data, tasks and policy; its model and targets are not read.
        folder: The recipe's.
        where: The recipe's name, for messages.
        candidate: A model file that a runtime opens, or a CSV of scores.
        baseline: The same; the two may be of different kinds.
        target: Host, runtime, threads and budgets; without, those of the recipe's target of the candidate's runtime, if
            it has one, else this machine. Its host answers and is timed.
        progress: Told what is happening.

    Raises:
        DataError: If rows, ids or scores cannot be used.
        ModelError: If a file cannot be opened, or has not the inputs of the data or the outputs of the tasks.
        WorkerError: If a runtime fails.
    """
    progress.step("reading the data")
    dataset, labels = load_rows(Plan(recipe, folder, where, (), ()))
    rows = dataset.split("test")
    inputs = dataset.reader.read(rows)
    if target is None and not is_score_file(candidate):
        target = target_of(recipe, folder, where, open_files([candidate])[0].runtime)
    clock: Host = open_host(target) if target else LocalHost()
    host = answering_host(clock)
    progress.step(f"scoring {len(rows):,} rows with {baseline.name}")
    before = answer(baseline, recipe, dataset, rows, inputs, target, host)
    progress.step(f"scoring {len(rows):,} rows with {candidate.name}")
    after = answer(candidate, recipe, dataset, rows, inputs, target, host)
    if before.name == after.name:
        raise ModelError(f"{candidate}: it is named as candidate and as baseline", "name two files.")
    questions, answers, alike = _questions(recipe, dataset, labels, rows, before, after)
    progress.step("looking for test rows in other splits")
    leaks = find_leaks(dataset)
    disturbed = dataset.sample("test", min(max(1, recipe.evaluate.robustness_rows), len(rows)), recipe.seed)
    askable = alike and before.ask is not None and after.ask is not None
    explained = None
    if askable and recipe.explain is not None:
        declined = _declined(recipe, questions, answers[0])
        explained = explain_rows(dataset, inputs, declined, recipe.explain, recipe, folder, where)
    holdout = Holdout(
        rows=len(rows),
        inputs=inputs,
        questions=questions,
        parity_rows=np.empty(0, dtype=np.int64),
        fingerprint=hashlib.sha256(dataset.split_fingerprint("test").encode()).hexdigest(),
        subjects=take_subjects(dataset, rows, recipe, where),
        disturbed_rows=np.searchsorted(rows, disturbed) if recipe.evaluate.robustness_rows else np.empty(0, np.int64),
        explained=explained,
        class_names=class_names(recipe, dataset),
    )
    progress.step("comparing")
    asks = (_named(before.ask, before, questions), _named(after.ask, after, questions)) if askable else (None, None)
    own = _candidate(before, holdout, recipe, Sides(answers[0], answers[0]))
    other = _candidate(after, holdout, recipe, Sides(*answers, *asks))
    seen = clock.facts()
    costs = measure_costs((before, after), recipe, target, clock, inputs, progress)
    own, other = (
        replace(
            item, latency=costs[item.scheme].latency, memory=costs[item.scheme].memory, error=costs[item.scheme].error
        )
        if item.scheme in costs
        else item
        for item in (own, other)
    )
    policy, budgets = recipe.gate, target.budgets if target else Budgets()
    settings = {"candidate": str(candidate), "baseline": str(baseline)}
    if after.model is None:
        # Scores cost nothing and run nowhere.
        settings |= {"not judged": ", ".join(stated)} if (stated := stated_bounds(policy, budgets)) else {}
        policy, budgets = policy.model_copy(update=dict.fromkeys(BOUNDS)), Budgets()
    margins = {item.name: item.margin for item in questions if item.margin is not None}
    verdict = judge(other, policy, budgets, margins, leaks)
    passed = verdict.status == "PASS"
    evidence = TargetEvidence(
        target=target.name if target else "evaluate",
        runtime=after.model.runtime if after.model else "scores",
        settings=settings,
        candidates=(own, other),
        verdicts={other.scheme: verdict},
        choice=Choice(other.scheme if passed else None, "its verdict is PASS" if passed else verdict.reason),
        machine=clock.machine,
        device={"before": seen, "after": clock.facts()} if seen else {},
        unanswered=unanswered(clock),
    )
    data = replace(dataset.info(only_label(labels)), leaks=leaks)
    return Evaluation(evidence, EXIT_CODES[verdict.status], flipped_rows(holdout, *answers), data)


def as_evidence(found: Evaluation, recipe: Recipe) -> Evidence:
    """Returns an evaluation in the form of a run's evidence, for the reports; no model is known."""
    text = json.dumps(recipe.model_dump(mode="json"))
    return Evidence(
        name=recipe.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=compress.__version__,
        recipe_digest=digest(text.encode()),
        model=_UNKNOWN_MODEL,
        compressed=_UNKNOWN_MODEL,
        steps=(),
        data=found.data,
        targets=(found.evidence,),
        environment=environment(sorted({"edge-compress", *PACKAGES.get(found.evidence.runtime, ())})),
    )


def _questions(
    recipe: Recipe,
    dataset: Dataset,
    labels: Mapping[str, str],
    rows: NDArray[np.int64],
    before: Answered,
    after: Answered,
) -> tuple[tuple[Question, ...], tuple[Arrays, Arrays], bool]:
    """The tasks, and the answers of both brought to one link: one may give logits and the other probabilities.

    The third says whether nothing had to be brought: only then do further answers mean the same on both sides.
    """
    questions = []
    answers: tuple[Arrays, Arrays] = ({}, {})
    alike = True
    for name, config in recipe.questions.items():
        output = answer_key(name, config)
        said = None if config.link == "auto" else config.link
        links = []
        for source, kept in zip((before, after), answers, strict=True):
            where = f"{source.path}: {output}"
            # A score file holds probabilities unless they cannot be.
            of_file = None if source.model is None else said
            link = find_link(config.kind, source.answers[name], of_file, where)
            links.append(link)
            kept[output] = source.answers[name]
        link = links[0]
        if links[0] != links[1]:
            alike = False
            link = "probability"
            for source, kept, of in zip((before, after), answers, links, strict=True):
                kept[output] = _as_probability(source.answers[name], config.kind, of, str(source.path))
        questions.append(
            Question(
                name,
                config.kind,
                output,
                labels[name],
                dataset.label(labels[name])[rows],
                link,
                config.cutoff,
                config.margin,
            )
        )
    return tuple(questions), answers, alike


def _as_probability(outputs: NDArray[np.generic], kind: TaskKind, link: Link | None, where: str) -> NDArray[np.float64]:
    if link is None:
        return np.asarray(outputs, dtype=np.float64)
    return (class_probabilities if kind == "multiclass" else probabilities)(outputs, link, where)


def _named(ask: Ask | None, source: Answered, questions: tuple[Question, ...]) -> Ask | None:
    """Lets a file answer under the names of the tasks."""
    if ask is None:
        return None

    def named(inputs: Arrays) -> Arrays:
        outputs = ask(inputs)
        only = next(iter(outputs.values()))
        return {question.output: outputs.get(question.output, only) for question in questions}

    return named


def _declined(recipe: Recipe, questions: tuple[Question, ...], answers: Arrays) -> NDArray[np.bool_] | None:
    deciding = next((question for question in questions if question.kind == "binary"), None)
    if deciding is None:
        return None
    decided = decide_rows(answers[deciding.output], deciding.decision, "baseline")
    return None if decided is None else decided != (0 if recipe.evaluate.favourable == "negative" else 1)


def _candidate(source: Answered, holdout: Holdout, recipe: Recipe, sides: Sides) -> Candidate:
    metrics: list[Metric] = []
    for question in holdout.questions:
        metrics += compare_task(
            question.kind,
            question.labels,
            sides.before[question.output],
            sides.after[question.output],
            task=question.name,
            link=question.link,
            cutoff=question.cutoff,
            resamples=recipe.measure.resamples,
            seed=recipe.seed,
            where=f"{source.path}: {question.output}",
        )
    reviews = review_all(holdout, recipe, sides, str(source.path)) if sides.before is not sides.after else ()
    if sides.ask_after is None:
        reviews = tuple(replace(review, notes=(*review.notes, _NOT_ASKED)) for review in reviews)
    return Candidate(
        source.name,
        artifact=source.artifact,
        metrics=tuple(metrics),
        parity=parity(
            sides.before,
            sides.after,
            name="the baseline",
            decisions={question.output: question.decision for question in holdout.questions},
        ),
        placement=source.placement,
        reviews=reviews,
    )
