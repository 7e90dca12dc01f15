from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_rows import labelled
from scipy.special import expit, softmax
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as reference_log_loss
from tiny_models import answers, engine, exported
from torch import nn

from compress.errors import PassError, RecipeError
from compress.evaluate.reliability import ece
from compress.passes.base import Context, Task, run_pass
from compress.passes.recalibrate.fit import (
    Affine,
    Curve,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    held_out,
    log_loss,
)

ROWS = 3000
BINARY = Task("", "binary", "score", "bad", "logit")


class Scorer(nn.Module):
    """Gives log-odds, or probabilities, of one or of four classes, and a number beside them."""

    def __init__(self, width=1, probability=False, flat=True):
        super().__init__()
        self.head = nn.Linear(3, width)
        self.other = nn.Linear(3, 1)
        self.probability, self.flat = probability, flat

    def forward(self, features):
        score = self.head(features)
        if self.probability:
            score = torch.sigmoid(score) if score.shape[1] == 1 else torch.softmax(score, dim=1)
        return {"score": score.squeeze(-1) if self.flat else score, "amount": self.other(features).squeeze(-1)}


def made(width=1, probability=False, flat=True, count=ROWS, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = Scorer(width, probability, flat).eval()
        with torch.no_grad():
            module.head.weight.mul_(3)
    rows = {"features": np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)}
    return exported(module, rows), rows


def recalibrated(model, data, tasks=(BINARY,), allow=False, **options):
    return run_pass("recalibrate", model, data, Context(options=options, tasks=tasks), allow_no_change=allow)


def log_odds(model, rows, task=BINARY):
    values = model.run(rows)[task.output].astype(np.float64).reshape(len(rows["features"]), -1)
    if task.link == "logit":
        return values
    return np.log(values) if values.shape[1] > 1 else np.log(values / (1 - values))


# --- the fits -----------------------------------------------------------------------------------------------------


def drawn(change, rows=ROWS, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(0, 2, rows)
    return values, (random.random(rows) < expit(change(values))).astype(np.int64)


def test_a_temperature_is_found_and_is_the_best_one():
    values, labels = drawn(lambda odds: 0.5 * odds, 40_000)
    fitted = fit_temperature(values, labels)
    assert fitted.scale == pytest.approx(0.5, abs=0.03)
    for scale in (fitted.scale * 0.98, fitted.scale * 1.02):
        assert log_loss(scale * values, labels) > log_loss(fitted(values), labels)


def test_platts_line_is_that_of_logistic_regression():
    values, labels = drawn(lambda odds: 0.6 * odds - 0.8, 20_000)
    fitted = fit_platt(values, labels)
    reference = LogisticRegression(C=1e10).fit(values[:, None], labels)
    # Platt's targets differ from 0 and 1 by about one part in the number of rows.
    assert fitted.scale == pytest.approx(reference.coef_[0, 0], rel=2e-3)
    assert fitted.shift == pytest.approx(reference.intercept_[0], rel=4e-3)


def test_isotonic_knots_are_the_blocks_of_scikit_learn():
    values, labels = drawn(lambda odds: np.sinh(odds / 2), 400)
    fitted = fit_isotonic(values, labels, knots=10_000)
    positives = int(labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    reference = IsotonicRegression().fit(values, targets).predict(np.sort(values))
    assert expit(fitted.y) == pytest.approx(np.unique(reference.round(12)))


def test_log_loss_is_that_of_scikit_learn():
    values, labels = drawn(lambda odds: odds, 500)
    assert log_loss(values, labels) == pytest.approx(reference_log_loss(labels, expit(values)))
    logits = np.random.default_rng(0).normal(size=(500, 3))
    classes = np.arange(500) % 3
    assert log_loss(logits, classes) == pytest.approx(reference_log_loss(classes, softmax(logits, axis=1)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8), min_size=60, max_size=200), st.integers(0, 2**31), st.integers(2, 40), st.floats(0.3, 3)
)
def test_every_fit_rises_everywhere(values, seed, knots, steep):
    values = np.array(values)
    labels = (np.random.default_rng(seed).random(values.size) < expit(steep * values)).astype(np.int64)
    for fit in (fit_temperature, fit_platt, lambda v, y: fit_isotonic(v, y, knots)):
        try:
            fitted = fit(values, labels)
        except PassError:
            continue
        at = np.unique(np.concatenate([values, np.linspace(-20, 20, 50)]).round(3))
        assert (np.diff(fitted(at)) > 0).all()


def test_scores_that_fall_and_scores_that_separate_are_told():
    values, labels = drawn(lambda odds: -2 * odds)
    for fit in (fit_platt, lambda v, y: fit_isotonic(v, y, 20)):
        with pytest.raises(PassError, match="does not rise with the score"):
            fit(values, labels)
    with pytest.raises(PassError, match="do not tell a temperature"):
        fit_temperature(values, (values > 0).astype(np.int64))
    # Platt's targets keep his line finite.
    assert np.isfinite(fit_platt(values, (values > 0).astype(np.int64)).scale)


def test_rows_that_a_fit_did_not_see_score_it():
    values, labels = drawn(lambda odds: odds, 300)
    before, after = held_out(lambda v, y: fit_isotonic(v, y, 200), values, labels, seed=0)
    assert before == pytest.approx(log_loss(values, labels))
    # A curve through 300 single rows: better on them, worse on others.
    assert log_loss(fit_isotonic(values, labels, 200)(values), labels) < before < after


# --- the pass -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("link", ["logit", "probability"])
@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_a_binary_output_becomes_calibrated_and_keeps_the_order(method, link, flat):
    model, rows = made(probability=link == "probability", flat=flat)
    task = Task("", "binary", "score", "bad", link)
    change = {"temperature": lambda z: 0.4 * z, "platt": lambda z: 0.5 * z - 1, "isotonic": lambda z: np.sinh(z / 2)}[
        method
    ]
    result = recalibrated(model, labelled(model, rows, (task,), change), (task,), method=method)
    assert result.model.signature == model.signature
    assert [(item.where, item.reason) for item in result.skipped] == [
        ("amount", "no task that is recalibrated is answered by it")
    ]
    assert len(result.changed) == 1 and "log-loss of 3,000 calibration rows" in result.changed[0].what
    # Rows that nobody saw.
    _, fresh = made(count=20_000, seed=9)
    truth = labelled(model, fresh, (task,), change, seed=5).labels["bad"]
    before, after = (log_odds(each, fresh, task)[:, 0] for each in (model, result.model))
    assert log_loss(after, truth) < log_loss(before, truth) - 0.01
    assert ece(truth == 1, expit(after), 10) < 0.6 * ece(truth == 1, expit(before), 10)
    assert np.array_equal(model.run(fresh)["amount"], result.model.run(fresh)["amount"])
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all()
    # Rounding in float32 may make equal what was next to it, and no more.
    assert np.abs(rankdata(before) - rankdata(after)).max() < 20


@pytest.mark.parametrize("link", ["logit", "probability"])
def test_several_classes_get_a_temperature(link):
    model, rows = made(4, link == "probability", flat=False)
    task = Task("kind", "multiclass", "score", "label", link)
    data = labelled(model, rows, (task,), lambda logits: 0.5 * logits)
    result = recalibrated(model, data, (task,))
    (change,) = result.changed
    assert change.what.startswith("temperature scaling: 0.")
    before, after = model.run(rows)["score"], result.model.run(rows)["score"]
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    if link == "probability":
        assert after.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert log_loss(log_odds(result.model, rows, task), data.labels["label"]) < log_loss(
        log_odds(model, rows, task), data.labels["label"]
    )


def test_tasks_are_recalibrated_one_by_one():
    model, rows = made()
    tasks = (BINARY, Task("size", "regression", "amount", "sum", None))
    data = labelled(model, rows, tasks, lambda z: 0.4 * z)
    result = recalibrated(model, data, tasks)
    assert [item.where for item in result.changed] == ["score"]
    assert result.skipped[0].reason == "a regression task has no probability"
    with pytest.raises(RecipeError, match=r"there is no task 'sise'") as caught:
        run_pass("recalibrate", model, data, Context(options={"tasks": ["sise"]}, tasks=tasks))
    assert "size" in caught.value.hint
    twice = (BINARY, Task("again", "binary", "score", "bad", "logit"))
    with pytest.raises(RecipeError, match="two tasks are answered by the output 'score'"):
        recalibrated(model, data, twice)


def test_what_does_not_help_is_left_alone():
    model, rows = made()
    data = labelled(model, rows, (BINARY,), lambda z: z, seed=3)
    result = recalibrated(model, data, allow=True, method="isotonic", knots=200)
    assert (result.changed, result.model.digest) == ((), model.digest)
    assert "does not help" in result.skipped[0].reason
    with pytest.raises(PassError, match="the pass 'recalibrate' changed nothing"):
        recalibrated(model, data, method="isotonic", knots=200)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "plat"}, "passes: recalibrate: method"),
        ({"knots": 1}, "knots"),
        ({"metod": "platt"}, "did you mean 'method'"),
    ],
)
def test_wrong_options_are_errors_of_the_recipe(options, said):
    model, rows = made()
    with pytest.raises(RecipeError) as caught:
        recalibrated(model, labelled(model, rows, (BINARY,), lambda z: z), **options)
    assert said in str(caught.value)


def test_a_curve_for_several_classes_and_missing_rows_are_refused():
    model, rows = made(4, flat=False)
    task = Task("kind", "multiclass", "score", "label", "logit")
    data = labelled(model, rows, (task,), lambda logits: 0.5 * logits)
    with pytest.raises(RecipeError, match="'isotonic' is for two classes; 'kind' has more"):
        recalibrated(model, data, (task,), method="isotonic")
    with pytest.raises(PassError, match="needs rows with labels"):
        recalibrated(model, None, (task,))
    model, rows = made(count=60)
    few = labelled(model, rows, (BINARY,), lambda z: z - 6)
    with pytest.raises(PassError, match=r"\d+ calibration rows of a class are too few"):
        recalibrated(model, few)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize(("method", "link"), [("platt", "logit"), ("isotonic", "logit"), ("isotonic", "probability")])
def test_both_runtimes_give_the_same_answers(runtime, method, link):
    model, rows = made(probability=link == "probability")
    task = Task("", "binary", "score", "bad", link)
    result = recalibrated(model, labelled(model, rows, (task,), lambda z: 0.5 * z - 1), (task,), method=method)
    some = {"features": rows["features"][:64]}
    expected = result.model.run(some)["score"]
    got = answers(runtime, engine(runtime).lower(result.model).data, some)["score"]
    assert got == pytest.approx(expected, abs=2e-5)


def test_a_curve_beyond_its_ends_keeps_the_slope():
    curve = Curve(np.array([-1.0, 0.0, 2.0]), np.array([-0.5, 0.1, 0.4]))
    assert curve(np.array([-3.0, -1, -0.5, 1, 2, 5])) == pytest.approx([-2.5, -0.5, -0.2, 0.25, 0.4, 3.4])
    assert str(Affine(0.5, -0.25)) == "0.5 x log-odds -0.25"
