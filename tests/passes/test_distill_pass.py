"""A student learns what its teacher answers: with and without labels, from files, from its inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import built, exported
from torch import nn
from torch.nn import functional as F
from train_kit import BINARY, Scorer, dataset, model_of, rows_of, run, weights

from compress.errors import PassError, RecipeError
from compress.passes.base import Task
from compress.passes.distill import answers as answers_module
from compress.passes.distill.answers import keep_answers
from compress.passes.train.network import Network
from compress.passes.train.rows import make_pool

CPU = torch.device("cpu")
ROWS = {"rows": np.zeros((2, 5), np.float32)}


def teacher_of(data):
    return run("train", model_of(Scorer(width=32)), data, epochs=8).model


def apart(one, other, data):
    rows = data.reader.read(data.split("test"))
    return float(np.abs(one.run(rows)["score"] - other.run(rows)["score"]).mean())


def test_a_student_comes_close_to_its_teacher_without_any_label():
    data = dataset(noise=1.0)
    teacher, student = teacher_of(data), model_of(Scorer(width=8), seed=5)
    options = {"labels": 0.0, "epochs": 12, "monitor": "loss", "ctx": {"original": teacher}}
    result = run("distill", student, data, **options)
    assert apart(result.model, teacher, data) < 0.6 * apart(student, teacher, data)
    assert result.model.lineage[-1].startswith("distill: from model.py:build")
    score = result.training.scores[0]
    assert score.name == "auc" and score.teacher > 0.85 and score.after > score.before
    # The same labels turned around: nothing of it comes through.
    turned = rows_of(data.reader.inputs, {**data.labels, "late": 1 - data.labels["late"]}, {
        "train": 0.6, "calibration": 0.1, "validation": 0.15, "test": 0.15})  # fmt: skip
    again = run("distill", student, turned, **{**options, "patience": 99, "monitor": "metric"})
    assert again.training.epochs[1].train_loss == result.training.epochs[1].train_loss


def test_rows_without_labels_are_learnt_from():
    data = dataset(rows=120, unlabelled=600)
    teacher, student = teacher_of(dataset(rows=2000)), model_of(Scorer(width=8), seed=5)
    few = dataset(rows=120)
    options = {"labels": 0.0, "epochs": 6, "patience": 9, "monitor": "loss", "ctx": {"original": teacher}}
    more = run("distill", student, data, **options)
    assert more.training.rows == 72 + 600
    assert apart(more.model, teacher, data) < apart(run("distill", student, few, **options).model, teacher, data)
    # Plain training has no use for them.
    assert run("train", student, data).training.rows == 72


def test_the_teacher_is_asked_once_and_its_answers_serve_another_run(tmp_path, monkeypatch):
    data = dataset()
    teacher, student = teacher_of(data), model_of(Scorer(width=8), seed=5)
    said = []
    ctx = {"original": teacher, "work": tmp_path, "say": said.append}
    kept = run("distill", student, data, ctx=ctx)
    assert "the teacher answered 240 rows" in said
    said.clear()
    other = run("distill", student, data, ctx=ctx, temperature=4.0)
    assert "the teacher's answers were there already" in said
    assert other.model.digest != kept.model.digest
    # Asked anew for every batch it answers the same.
    live = run("distill", student, data, ctx={"original": teacher}, cache_gb=0.0)
    for name, values in weights(live.model).items():
        np.testing.assert_allclose(values, weights(kept.model)[name], atol=1e-4)
    # Another teacher is asked again, and the old one's answers go.
    said.clear()
    run("distill", student, data, ctx={**ctx, "original": model_of(Scorer(width=32), seed=9)})
    assert "the teacher answered 240 rows" in said
    assert len(list(tmp_path.glob("teacher-*"))) == 1


def test_answers_that_were_half_there_are_completed(tmp_path, monkeypatch):
    data = dataset()
    teacher = model_of(Scorer(width=32))
    network, pool = Network(teacher, CPU), make_pool(data, "train", [BINARY])
    whole = keep_answers(network, pool, teacher.arguments, 32, None, lambda sentence: None)
    asked = []
    real = answers_module._ask

    def counted(network, pool, arguments, start, end):
        asked.append(start)
        if start == 96 and len(asked) < 6:
            raise KeyboardInterrupt
        return real(network, pool, arguments, start, end)

    monkeypatch.setattr(answers_module, "_ask", counted)
    with pytest.raises(KeyboardInterrupt):
        keep_answers(network, pool, teacher.arguments, 32, tmp_path, lambda sentence: None)
    asked.clear()
    asked += [0] * 9
    kept = keep_answers(network, pool, teacher.arguments, 32, tmp_path, lambda sentence: None)
    assert asked[10:] == [96, 128, 160, 192, 224]
    np.testing.assert_array_equal(kept.kept["output:score"], whole.kept["output:score"])


def test_augmented_rows_ask_the_teacher_about_what_the_student_sees():
    data = dataset()
    teacher, said = teacher_of(data), []
    result = run(
        "distill", model_of(Scorer(width=8), seed=5), data, epochs=6, augment={"mixup": 0.4, "swap": 0.1},
        ctx={"original": teacher, "say": said.append},
    )  # fmt: skip
    assert "the teacher is asked anew for every batch: rows are augmented" in said
    assert result.training.scores[0].after > 0.9


def test_fixed_forms_of_a_row_are_asked_about_once(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.normal(size=(120, 1, 2, 3)).astype(np.float32)
    labels = {"late": (pictures[:, 0, 0, 1] > 0).astype(np.int64)}
    data = rows_of({"features": pictures}, labels, {"train": 0.8, "validation": 0.2})
    teacher, student = (exported(built(Flat, seed), {"features": pictures[:2]}) for seed in (0, 1))
    said = []
    ctx = {"original": teacher, "work": tmp_path, "say": said.append}
    augment = {"flip": True, "views": 3}
    first = run("distill", student, data, ctx=ctx, augment=augment)
    assert "the teacher answered 288 rows" in said
    # What is kept is what the teacher says of the forms that are fed.
    live = run("distill", student, data, ctx={"original": teacher}, augment=augment, cache_gb=0.0)
    for name, values in weights(live.model).items():
        np.testing.assert_allclose(values, weights(first.model)[name], atol=1e-4)
    said.clear()
    run("distill", student, data, ctx={**ctx, "seed": 1}, augment=augment)
    assert "the teacher answered 288 rows" in said


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 1)

    def forward(self, features):
        return {"score": self.head(features.flatten(1)).squeeze(-1)}


MODULE = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 1)

    def forward(self, features):
        return {"OUTPUT": self.head(torch.relu(self.norm(self.first(features)))).squeeze(-1)}


def build(width=4):
    return Small(width)
"""


def test_a_student_and_a_teacher_can_be_named(tmp_path):
    (tmp_path / "small.py").write_text(MODULE.replace("OUTPUT", "score"), encoding="utf-8")
    (tmp_path / "other.py").write_text(MODULE.replace("OUTPUT", "logit"), encoding="utf-8")
    data = dataset()
    model = teacher_of(data)
    ctx = {"original": model, "folder": tmp_path}
    student = {"source": "small.py:build", "arguments": {"width": 6}}
    result = run("distill", model, data, student=student, start="own", epochs=8, ctx=ctx)
    assert result.model.program.state_dict["first.weight"].shape == (6, 6)
    assert result.model.lineage[:-1] == model.lineage
    assert result.changed[0].what == "replaced by small.py:build {'width': 6}"
    assert result.training.scores[0].after > 0.95
    # A student of the teacher's width takes over what has the same name and shape.
    taken = run("distill", model, data, student={**student, "arguments": {"width": 32}}, epochs=1, ctx=ctx)
    assert taken.changed[1].what == "9 of 9 tensors taken over from the teacher"
    assert taken.training.scores[0].before == pytest.approx(taken.training.scores[0].teacher)
    save_file({name: value.contiguous() for name, value in result.model.program.state_dict.items()}, tmp_path / "w.st")
    named = {"source": "small.py:build", "weights": "w.st", "arguments": {"width": 6}}
    by_file = run("distill", model_of(Scorer(width=8), seed=3), data, teacher=named, ctx={"folder": tmp_path})
    assert by_file.training.scores[0].teacher == pytest.approx(result.training.scores[0].after)
    with pytest.raises(RecipeError, match=r"passes\[0\].student: other.py:build takes features \[6\] and gives logit"):
        run("distill", model, data, student={"source": "other.py:build"}, ctx=ctx)
    with pytest.raises(RecipeError, match='start = "teacher": no tensor has the same name and shape'):
        run("distill", model, data, student={"source": thin(tmp_path)}, ctx=ctx)


def thin(folder):
    """Writes a student whose tensors have other names."""
    text = MODULE.replace("OUTPUT", "score").replace("self.first", "self.one").replace("self.norm", "self.two")
    (folder / "thin.py").write_text(text.replace("self.head", "self.three"), encoding="utf-8")
    return "thin.py:build"


class Encoder(nn.Module):
    """Pre-norm blocks over five tokens."""

    def __init__(self, width, heads, depth):
        super().__init__()
        self.heads = heads
        self.lift = nn.Linear(1, width)
        self.blocks = nn.ModuleList(nn.ModuleDict({
            "norm": nn.LayerNorm(width), "q": nn.Linear(width, width), "k": nn.Linear(width, width),
            "v": nn.Linear(width, width), "out": nn.Linear(width, width), "after": nn.LayerNorm(width),
            "up": nn.Linear(width, 2 * width), "down": nn.Linear(2 * width, width)}) for _ in range(depth))  # fmt: skip
        self.head = nn.Linear(width, 1)

    def forward(self, rows):
        tokens = self.lift(rows.unsqueeze(-1))
        for block in self.blocks:
            normed = block["norm"](tokens)
            q, k, v = (block[n](normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for n in "qkv")
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            tokens = tokens + block["out"](mixed)
            tokens = tokens + block["down"](F.gelu(block["up"](block["after"](tokens))))
        return {"score": self.head(tokens.mean(1)).squeeze(-1)}


def encoder(width, heads, depth, seed=0):
    return exported(built(lambda: Encoder(width, heads, depth), seed), ROWS)


def tokens_data():
    data = dataset()
    return rows_of({"rows": data.reader.inputs["features"][:, :5]}, dict(data.labels), {
        "train": 0.6, "calibration": 0.1, "validation": 0.15, "test": 0.15})  # fmt: skip


def test_the_inside_of_a_transformer_is_learnt_through_projections():
    data = tokens_data()
    teacher = run("train", encoder(16, 4, 4), data, epochs=4).model
    student, said = encoder(8, 2, 2, seed=3), []
    result = run(
        "distill", student, data, hidden=1.0, relations=1.0, relation_heads=2, epochs=4,
        ctx={"original": teacher, "say": said.append},
    )  # fmt: skip
    assert result.training.pairs == (
        "blocks.0.down <- blocks.1.down (hidden 5x16, through 8 -> 16)",
        "blocks.1.down <- blocks.3.down (hidden 5x16, through 8 -> 16)",
        "blocks.1.v <- blocks.3.v (relations of queries, keys, values; 2 heads)",
    )
    # The projections are gone.
    assert set(result.model.program.state_dict) == set(student.program.state_dict)
    assert any(line.startswith("pairs, student <- teacher: blocks.0.down <- blocks.1.down") for line in said)
    losses = [item.train_loss for item in result.training.epochs[1:]]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relations": 1.0, "relation_heads": 3}, "3 heads do not divide the student's 8 channels"),
        ({"features": 1.0}, "features: the student has no feature maps"),
        ({"pairs": {"blocks.0.down": "blocks.0.down"}}, "pairs: nothing is compared"),
        ({"pairs": {"blocks.9.*": "*"}, "hidden": 1.0}, r"pairs: the pattern 'blocks.9.\*' matches no layer"),
        ({"pairs": {"blocks.0.down": "head"}, "hidden": 1.0}, r"hidden: no pair fits: \[5, 8\] cannot be compared"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
    ],
)
def test_what_cannot_be_compared_is_said(options, message):
    with pytest.raises(RecipeError, match=message):
        run("distill", encoder(8, 2, 2), tokens_data(), ctx={"original": encoder(16, 4, 4)}, **options)


def test_a_teacher_that_knows_nothing_better_changes_nothing():
    data = dataset()
    good = teacher_of(data)
    result = run("distill", good, data, labels=0.0, learning_rate=1e-12, ctx={"original": good})
    assert result.model is good or result.training.scores[0].after >= result.training.scores[0].before


def test_a_model_learns_from_labels_of_several_kinds_and_from_its_teacher():
    class Several(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body = nn.Linear(6, width)
            self.grade = nn.Linear(width, 3)
            self.amount = nn.Linear(width, 1)

        def forward(self, features):
            hidden = torch.relu(self.body(features))
            return {"grade": self.grade(hidden), "amount": self.amount(hidden)}

    tasks = (Task("grade", "multiclass", "grade", "grade", "logit"), Task("amount", "regression", "amount", "amount"))
    data = dataset(rows=800)
    teacher = run("train", model_of(Several(32)), data, tasks, epochs=12).model
    result = run("distill", model_of(Several(8), 5), data, tasks, epochs=12, ctx={"original": teacher})
    found = {score.name: score for score in result.training.scores}
    assert found["grade top_1"].after > 0.8 and found["amount r2"].after > 0.9
    with pytest.raises(PassError, match="learns from labelled rows"):
        run("distill", teacher, data, ())
