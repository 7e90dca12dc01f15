from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from compress.evaluate.decisions import Decision
from compress.evaluate.explain import compare_attributions
from compress.evaluate.groups import group
from compress.evaluate.periods import period_groups
from compress.evaluate.probes import Feature
from compress.evaluate.quality import compare
from compress.evaluate.review import Asked, review_task
from compress.evaluate.robustness import compare_disturbed
from compress.evidence import Candidate, Choice, TargetEvidence, from_json, to_json
from compress.gate import judge
from compress.recipe import CostConfig, EvaluateConfig, GateConfig
from compress.report.evaluation import render
from compress.report.markdown_target import target_section
from compress.report.review import review_parts
from compress.review import Review
from compress.target import Budgets


@pytest.fixture(scope="module")
def evidence():
    from dataclasses import replace

    random = np.random.default_rng(0)
    logit = random.normal(-0.5, 1.5, 900)
    labels = (random.random(900) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    other = logit + random.normal(0, 0.2, 900)
    asked = Asked(
        "",
        "binary",
        "logit",
        0.5,
        (group("sex | <b>", random.integers(1, 3, 900)), group("age", random.integers(20, 80, 900), (40,))),
        period_groups("wave", np.arange(900) // 450, "value"),
    )
    config = EvaluateConfig(cost=CostConfig(false_positive=1, false_negative=5), folds=3)
    review = review_task(labels, logit, other, asked, config, resamples=100, seed=0, where="score")
    values = random.normal(size=(30, 2))
    explanation = compare_attributions(
        values,
        values * 1.1,
        [Feature("a", "x", 0), Feature("b", "x", 1)],
        towards_decline=1,
        declined=np.ones(30, dtype=bool),
        top_k=1,
        background_rows=4,
        level=0.95,
        method="Shapley values",
    )
    disturbed = compare_disturbed(
        "noise", (logit, other), (logit, None), Decision("binary", "logit", 0.5), note="refused"
    )
    review = replace(review, explanations=(explanation,), robustness=(disturbed,), flips_file="flips.csv")
    scores = [1 / (1 + np.exp(-values)) for values in (logit, other)]
    metrics = compare(labels, *scores, cutoff=0.5, resamples=100, seed=0)
    candidate = Candidate("new\x1b[31m.onnx", metrics=metrics, reviews=(review,))
    verdict = judge(candidate, GateConfig(), Budgets())
    return TargetEvidence(
        "evaluate", "scores", {}, (Candidate("old"), candidate), {candidate.scheme: verdict}, Choice(None, "said")
    )


def test_every_part_of_a_review_is_a_table(evidence):
    parts = {part.title: part for part in review_parts(evidence.candidates[1])}
    assert list(parts) == [
        "Decisions",
        "Score bands",
        "Ranking",
        "Lift by decile",
        "Calibration",
        "Segments",
        "Fairness",
        "Periods",
        "Folds",
        "Explanations",
        "Robustness",
    ]
    for part in parts.values():
        assert all(len(row) == len(part.headings) for row in part.rows)
    assert parts["Decisions"].notes == ("the rows that flipped: flips.csv",)
    assert any("refused" in row for row in parts["Robustness"].rows)


def test_the_terminal_says_the_verdict_first_and_no_control_character(evidence):
    out = io.StringIO()
    render(evidence, Console(file=out, width=120))
    said = out.getvalue()
    assert said.startswith(f"{evidence.verdicts[evidence.candidates[1].scheme].status}: ")
    assert "\x1b" not in said
    assert "expected_cost" in said


def test_markdown_folds_the_review_and_escapes_names(evidence):
    text = target_section(evidence)
    assert "### Who is treated differently" in text
    assert "sex &#124; &lt;b&gt; 1" in text


def test_a_review_survives_its_file(evidence):
    review = evidence.candidates[1].reviews[0]
    assert from_json(Review, to_json(review)) == review
    # Evidence written before there were reviews has none.
    assert from_json(Candidate, '{"scheme": "float32"}').reviews == ()
