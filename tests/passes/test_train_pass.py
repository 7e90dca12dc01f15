"""The pass: that it learns, keeps what is best, and says what it did."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from train_kit import BINARY, Plain, Scorer, Tied, dataset, model_of, rows_of, run, weights

from compress.errors import DataError, PassError, RecipeError
from compress.model.core import check_eval
from compress.passes.base import Context, Task, run_pass
from compress.passes.train import train as train_module
from compress.passes.train.checkpoint import read_state
from compress.passes.train.score import figure

GRADE = Task("grade", "multiclass", "grade", "grade", "logit")


def auc(model, data, split="test"):
    rows = data.split(split)
    output = torch.from_numpy(model.run(data.reader.read(rows))["score"])
    return figure(BINARY, output, data.label("late")[rows])


def test_it_learns_rows_that_can_be_told_apart():
    model, data = model_of(Scorer()), dataset()
    result = run("train", model, data, epochs=8)
    assert auc(model, data) < 0.8 < 0.94 < auc(result.model, data)
    check_eval(result.model.program, "trained")
    assert result.model.signature == model.signature
    assert result.model.lineage == (*model.lineage, "train: 8 epochs")
    assert str(result.model.program.graph) == str(model.program.graph)


def test_what_it_cost_and_gave_is_told():
    said = []
    result = run("train", model_of(Scorer()), dataset(), epochs=4, ctx={"say": said.append})
    info = result.training
    assert [item.epoch for item in info.epochs] == [0, 1, 2, 3, 4]
    assert info.epochs[0].train_loss is None and all(item.train_loss > 0 for item in info.epochs[1:])
    (score, loss) = info.scores
    assert (score.name, score.teacher, loss.name) == ("auc", None, "loss")
    assert score.before == info.epochs[0].metric and score.after == info.epochs[info.best_epoch].metric
    assert score.after == max(item.metric for item in info.epochs)
    assert (info.rows, info.steps, info.ended) == (240, 4 * 7, "all epochs are done")
    assert len(said) == 5 and "epoch 4 of 4" in said[-1] and "auc 0." in said[-1]


def test_the_same_seed_gives_the_same_weights():
    model, data = model_of(Scorer()), dataset(noise=0.5)
    one, other = (run("train", model, data, augment={"swap": 0.1}, ema=0.9) for _ in range(2))
    assert one.model.digest == other.model.digest
    assert one.training.epochs == other.training.epochs
    assert run("train", model, data, augment={"swap": 0.1}, ema=0.9, ctx={"seed": 1}).model.digest != one.model.digest


def test_generators_outside_are_left_alone():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    model = model_of(Plain())
    torch.manual_seed(3)
    run("train", model, dataset(), epochs=1)
    assert torch.equal(torch.rand(2), wanted)


def test_it_stops_when_nothing_gets_better_and_keeps_the_best():
    # Labels that the features do not tell: what is learnt is the training rows.
    data = dataset(noise=30.0)
    result = run("train", model_of(Scorer(width=64)), data, epochs=40, patience=2, learning_rate=0.02)
    info = result.training
    last = info.epochs[-1].epoch
    assert last < 40 and last - info.best_epoch == 2
    assert info.ended == "2 epochs without a better one"
    assert info.epochs[info.best_epoch].metric == max(item.metric for item in info.epochs)


def test_where_no_epoch_is_better_the_model_stays(workshop):
    model, data = model_of(Plain()), dataset()
    with torch.no_grad():
        model.program.state_dict["head.weight"].copy_(torch.tensor([[1.5, -1.0, 0.5, 0.0, 0.0, 0.8]]))
    result = run("train", model, data)
    assert result.model is model and result.changed == ()
    assert "no epoch was better than what came in (1.0000 before" in result.skipped[0].reason
    with pytest.raises(PassError, match="changed nothing: no epoch was better"):
        run_pass("train", model, data, Context(options={"epochs": 1}, tasks=(BINARY,)))


def test_the_loss_can_decide_instead_of_the_figure():
    info = run("train", model_of(Plain()), dataset(), monitor="loss", epochs=6).training
    assert info.epochs[info.best_epoch].loss == min(item.loss for item in info.epochs)


def test_without_validation_rows_the_last_epoch_is_kept():
    data = dataset(shares={"train": 0.8, "calibration": 0.1, "test": 0.1, "validation": 0.0})
    result = run("train", model_of(Plain()), data)
    assert result.training.best_epoch == 3
    assert "no validation rows" in result.skipped[0].reason
    assert result.training.scores == () and result.training.metric == ""


def test_a_loss_that_is_no_number_is_an_error_and_the_best_stays(tmp_path, monkeypatch):
    data = dataset()
    broken = data.reader.read(np.arange(data.rows))["features"]
    broken[: len(data.split("train"))][100] = np.nan
    with pytest.raises(PassError, match="train: the loss became nan in epoch 1, step") as caught:
        run("train", model_of(Plain()), rows_of({"features": broken}, dict(data.labels), {"train": 1.0}))
    assert "lower learning_rate (now 0.01)" in caught.value.hint
    calls = []
    real = train_module.label_loss

    def broken_later(*given):
        calls.append(given)
        return real(*given) * (math.nan if len(calls) > 16 else 1)

    monkeypatch.setattr(train_module, "label_loss", broken_later)
    with pytest.raises(PassError, match="the loss became nan in epoch 3, step 17") as caught:
        run("train", model_of(Scorer()), data, ctx={"work": tmp_path})
    # What was best stays, and the message says where.
    (kept,) = tmp_path.rglob("best-*.safetensors")
    assert f"The best epoch so far, {int(kept.stem[5:])}, is in {kept}" in caught.value.hint
    assert "first.weight" in read_state(kept)[0]


def test_averages_follow_the_weights_slowly():
    model, data = model_of(Plain()), dataset()
    options = {"epochs": 1, "monitor": "loss"}
    start, fast = weights(model), weights(run("train", model, data, **options).model)
    slow = weights(run("train", model, data, ema=0.999, **options).model)
    moved = {name: np.abs(values - start["head.weight"]).sum() for name, values in
             (("fast", fast["head.weight"]), ("slow", slow["head.weight"]))}  # fmt: skip
    assert 0 < moved["slow"] < moved["fast"]


def test_ties_stay_ties():
    model = model_of(Tied())
    state = model.program.state_dict
    assert state["up.weight"] is state["again.weight"]
    before = weights(model)
    trained = run("train", model, dataset()).model.program.state_dict
    assert trained["up.weight"] is trained["again.weight"]
    assert not np.array_equal(trained["up.weight"].detach().numpy(), before["up.weight"])


def test_what_is_frozen_stays():
    model = model_of(Scorer())
    before, after = weights(model), weights(run("train", model, dataset(), freeze=["first.*"]).model)
    assert np.array_equal(before["first.weight"], after["first.weight"])
    assert not np.array_equal(before["head.weight"], after["head.weight"])
    assert not np.array_equal(before["norm.running_mean"], after["norm.running_mean"])
    kept = weights(run("train", model, dataset(), batch_norm="frozen").model)
    assert np.array_equal(before["norm.running_mean"], kept["norm.running_mean"])
    assert not np.array_equal(before["norm.weight"], kept["norm.weight"])
    with pytest.raises(RecipeError, match=r"passes\[0\].freeze: the pattern 'frist.\*' matches no parameter"):
        run("train", model, dataset(), freeze=["frist.*"])


def test_weight_decay_spares_biases_and_normalisations():
    model, data = model_of(Scorer()), dataset()
    with torch.no_grad():
        for name, value in model.program.state_dict.items():
            if name in ("first.bias", "norm.bias", "norm.weight"):
                value.fill_(0.5)
    options = {"epochs": 2, "learning_rate": 1e-6, "weight_decay": 1e4, "monitor": "loss"}
    after = weights(run("train", model, data, **options).model)
    before = weights(model)
    assert np.abs(after["first.weight"]).sum() < 0.95 * np.abs(before["first.weight"]).sum()
    for name in ("first.bias", "norm.bias", "norm.weight", "head.bias"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-4)


def test_a_rare_class_weighs_more_when_classes_are_balanced():
    model, data = model_of(Plain()), dataset(rows=1000, noise=1.0, rate=0.05)
    shares = []
    for options in ({}, {"class_weights": "balanced"}, {"class_weights": [1.0, 19.0]}, {"sampling": "balanced"}):
        trained = run("train", model, data, epochs=10, monitor="loss", patience=10, **options).model
        positive = trained.run(data.reader.read(data.split("test")))["score"] > 0
        shares.append(float(positive.mean()))
    assert shares[0] < 0.1
    assert all(share > shares[0] + 0.05 for share in shares[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, r"passes\[0\]: train: unknown key 'epoch'"),
        ({"epochs": 0}, "epochs must be greater than or equal to 1"),
        ({"class_weights": [1.0]}, r"class_weights has 1 weights, the label 'late' 2 classes"),
        ({"class_weights": [1.0, 0.0]}, "a class's weight must be more than 0"),
        ({"class_weights": {"late": [1.0, 2.0]}}, "class_weights: there is no task 'late'"),
        ({"task_weights": {"x": 1.0}}, "task_weights: there is no task 'x'"),
        ({"precision": "float16"}, 'precision = "float16": it needs a GPU'),
        ({"augment": {"flip": True}}, r"augment.flip: no input is \[channels, height, width\]"),
        ({"augment": {"mask": 0.1}}, "augment.mask: the data are no texts"),
    ],
)
def test_what_a_recipe_says_wrongly_is_named(options, message):
    with pytest.raises(RecipeError, match=message):
        run("train", model_of(Plain()), dataset(), **options)


def test_bfloat16_trains_where_the_processor_has_it_and_is_refused_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    model, data = model_of(Scorer()), dataset()
    half = run("train", model, data, epochs=8, precision="bfloat16", device="cpu")
    whole = run("train", model, data, epochs=8, device="cpu")
    assert auc(half.model, data) > 0.94
    # The master weights are float32, and were moved by other gradients.
    assert all(
        value.dtype == torch.float32 for value in half.model.program.state_dict.values() if value.is_floating_point()
    )
    assert weights(half.model).keys() == weights(whole.model).keys() and half.model.digest != whole.model.digest
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    with pytest.raises(RecipeError, match="this processor has no instructions for it"):
        run("train", model, data, precision="bfloat16", device="cpu")


def test_labels_that_the_output_has_no_score_for_are_named():
    data = dataset()
    strange = rows_of(data.reader.inputs, {**data.labels, "grade": data.labels["grade"].copy()}, {"train": 1.0})
    strange.labels["grade"][0] = 3
    with pytest.raises(DataError, match="'grade' holds classes from 0 to 3, the output 'grade' has 3"):
        run("train", model_of(Several()), strange, TASKS)


def test_a_launcher_of_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="a launcher started 2 processes") as caught:
        run("train", model_of(Plain()), dataset())
    assert "model.weights" in caught.value.hint


def test_without_rows_there_is_nothing_to_learn_from():
    with pytest.raises(PassError, match="learns from labelled rows"):
        run_pass("train", model_of(Plain()), None, Context(), allow_no_change=True)


class Several(torch.nn.Module):
    """An output a task."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(6, 16)
        self.heads = torch.nn.ModuleDict({"late": torch.nn.Linear(16, 1), "grade": torch.nn.Linear(16, 3)})
        self.amount = torch.nn.Linear(16, 1)

    def forward(self, features):
        hidden = torch.relu(self.body(features))
        made = {name: head(hidden) for name, head in self.heads.items()}
        return {**made, "amount": self.amount(hidden)}


TASKS = (
    Task("late", "binary", "late", "late", "logit"),
    GRADE,
    Task("amount", "regression", "amount", "amount", None),
)


def test_several_tasks_learn_together():
    result = run("train", model_of(Several()), dataset(rows=800), TASKS, epochs=12)
    found = {score.name: score for score in result.training.scores}
    assert list(found) == ["late auc", "grade top_1", "amount r2", "loss"]
    assert found["late auc"].after > 0.95 and found["grade top_1"].after > 0.8 and found["amount r2"].after > 0.9
    assert result.training.metric == "mean of auc, top_1, r2"


def test_a_task_without_weight_is_not_learnt():
    model, data = model_of(Several()), dataset()
    before = weights(model)
    after = weights(run("train", model, data, TASKS, task_weights={"grade": 0.0}, weight_decay=0.0).model)
    assert np.array_equal(before["heads.grade.weight"], after["heads.grade.weight"])
    assert not np.array_equal(before["heads.late.weight"], after["heads.late.weight"])
