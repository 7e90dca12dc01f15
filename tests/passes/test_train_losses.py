"""The formulas, against numbers that are computed another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score
from torch.nn import functional as F

from compress.errors import ModelError
from compress.passes.base import Task
from compress.passes.train.feed import Batch, label_loss
from compress.passes.train.losses import TaskLoss
from compress.passes.train.score import figure

BINARY = Task("", "binary", "score", "late", "logit")
CLASSES = Task("", "multiclass", "score", "grade", "logit")
NUMBER = Task("", "regression", "score", "amount", None)


def test_binary_is_cross_entropy_of_logits_or_probabilities():
    logits, labels = torch.tensor([-3.0, -0.5, 0.2, 4.0]), torch.tensor([0, 1, 1, 0])
    wanted = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    torch.testing.assert_close(TaskLoss(BINARY)(logits, labels), wanted)
    torch.testing.assert_close(TaskLoss(BINARY)(logits[:, None], labels), wanted)
    given = Task("", "binary", "score", "late", "probability")
    torch.testing.assert_close(TaskLoss(given)(logits.sigmoid(), labels), wanted, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(TaskLoss(given)(torch.tensor([0.0, 1.0]), torch.tensor([1, 0]))).all()


def test_classes_are_cross_entropy_with_smoothing_as_torch_has_it():
    logits, labels = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    for smoothing in (0.0, 0.1):
        wanted = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(TaskLoss(CLASSES, smoothing=smoothing)(logits, labels), wanted)
    given = Task("", "multiclass", "score", "grade", "probability")
    torch.testing.assert_close(
        TaskLoss(given)(logits.softmax(1), labels), F.cross_entropy(logits, labels, reduction="none")
    )


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_equation_4_of_its_paper(gamma):
    logits, labels = torch.tensor([2.0, -1.0, 0.3]), torch.tensor([1, 1, 0])
    chances = [1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(1.0)), 1 - 1 / (1 + math.exp(-0.3))]
    wanted = torch.tensor([-((1 - p) ** gamma) * math.log(p) for p in chances])
    torch.testing.assert_close(TaskLoss(BINARY, focal=gamma)(logits, labels), wanted)


def test_class_weights_multiply_and_squares_are_in_units_of_the_variance():
    logits, labels = torch.tensor([1.0, 1.0]), torch.tensor([0, 1])
    plain = TaskLoss(BINARY)(logits, labels)
    weighted = TaskLoss(BINARY, weight=2.0, class_weights=torch.tensor([0.5, 3.0]))(logits, labels)
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 6.0]))
    found = TaskLoss(NUMBER, variance=4.0)(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(found, torch.tensor([0.25, 4.0]))


@pytest.mark.parametrize("task", [BINARY, NUMBER, CLASSES])
def test_an_output_of_another_shape_is_named(task):
    with pytest.raises(ModelError, match=r"the output 'score' is \[rows, 3, 2\]"):
        TaskLoss(task)(torch.zeros(2, 3, 2), torch.zeros(2, dtype=torch.int64))


def batch(known, labels, partner=None, share=1.0):
    return Batch(np.arange(len(known)), (), {"": torch.tensor(labels)}, torch.tensor(known), partner, share)


def test_rows_without_labels_do_not_count():
    logits = torch.tensor([1.0, -2.0, 50.0])
    found = label_loss([TaskLoss(BINARY)], {"score": logits}, batch([True, True, False], [1, 0, 0]))
    torch.testing.assert_close(found, TaskLoss(BINARY)(logits[:2], torch.tensor([1, 0])).mean())
    none = label_loss([TaskLoss(BINARY)], {"score": logits}, batch([False] * 3, [0, 0, 0]))
    assert float(none) == 0


def test_a_mixed_row_answers_both_labels():
    logits, partner = torch.tensor([1.0, -2.0]), torch.tensor([1, 0])
    loss = TaskLoss(BINARY)
    found = label_loss([loss], {"score": logits}, batch([True, True], [1, 0], partner, 0.75))
    own, other = loss(logits, torch.tensor([1, 0])).mean(), loss(logits, torch.tensor([0, 1])).mean()
    torch.testing.assert_close(found, 0.75 * own + 0.25 * other)


def test_figures_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 200), random.normal(size=200).round(1)
    assert figure(BINARY, torch.from_numpy(scores), labels) == pytest.approx(roc_auc_score(labels, scores))
    amounts = random.normal(size=200)
    assert figure(NUMBER, torch.from_numpy(scores), amounts) == pytest.approx(r2_score(amounts, scores))
    assert figure(CLASSES, torch.eye(3), np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_a_figure_that_is_not_defined_is_none():
    assert figure(BINARY, torch.tensor([1.0, 2.0]), np.array([1, 1])) is None
    assert figure(NUMBER, torch.tensor([1.0, 2.0]), np.array([3.0, 3.0])) is None
    assert figure(BINARY, torch.tensor([1.0, math.nan]), np.array([0, 1])) is None
