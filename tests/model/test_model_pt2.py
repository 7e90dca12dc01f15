from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import TINY, built
from torch import nn
from torch.export import Dim

from compress.errors import ModelError, UnsafeFileError
from compress.model.core import TensorInfo
from compress.model.pt2 import load_pt2


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, zeta, alpha):
        hidden = self.left(zeta) + self.right(alpha)
        return {"zz": hidden, "aa": torch.relu(hidden)}


ROWS = {"zeta": torch.rand(8, 4), "alpha": torch.rand(8, 5)}


def saved(folder, module, args, kwargs=None, shapes=None):
    program = torch.export.export(module.eval(), args, kwargs, dynamic_shapes=shapes, strict=False)
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


@pytest.mark.parametrize("name", TINY)
def test_a_model_survives_the_way_to_an_archive_and_back(workshop, tmp_path, name):
    made = workshop.tiny(name)
    (tmp_path / "model.pt2").write_bytes(made.model.to_bytes())
    loaded = load_pt2(tmp_path / "model.pt2")
    assert loaded.signature == made.model.signature
    assert loaded.digest == made.model.digest
    assert loaded.lineage == ("model.pt2",)
    (tmp_path / "again.pt2").write_bytes(loaded.to_bytes())
    assert load_pt2(tmp_path / "again.pt2").to_bytes() == loaded.to_bytes()
    rows = made.rows(5)
    for output, array in made.model.run(rows).items():
        np.testing.assert_array_equal(loaded.run(rows)[output], array)


BATCHES = {
    "fixed at 1": (1, lambda: None),
    "fixed at 8": (8, lambda: None),
    "dynamic": (8, lambda: ({0: Dim("batch")},) * 2),
    "at most 64": (8, lambda: ({0: Dim("batch", min=1, max=64)},) * 2),
    "at least 4": (8, lambda: ({0: Dim("batch", min=4)},) * 2),
    "of one input only": (1, lambda: ({0: Dim.STATIC}, {0: Dim.STATIC})),
}


@pytest.mark.parametrize("batch", BATCHES)
def test_every_archive_takes_every_batch_afterwards(tmp_path, batch):
    rows, shapes = BATCHES[batch]
    module = built(Two)
    loaded = load_pt2(saved(tmp_path, module, tuple(value[:rows] for value in ROWS.values()), shapes=shapes()))
    assert loaded.signature.inputs == (TensorInfo("zeta", (4,), "float32"), TensorInfo("alpha", (5,), "float32"))
    for count in (1, 3, 7, 300):
        given = {name: torch.rand(count, *value.shape[1:]) for name, value in ROWS.items()}
        got = loaded.run({name: value.numpy() for name, value in given.items()}, batch=256)
        with torch.no_grad():
            wanted = module(**given)
        assert list(got) == ["zz", "aa"]
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value.numpy(), rtol=1e-5, atol=1e-6)


def test_two_batches_that_may_differ_become_one(tmp_path):
    class Apart(nn.Module):
        def forward(self, x, y):
            return {"x_sum": x.sum(1), "y_sum": y.sum(1)}

    rows = (torch.rand(8, 4), torch.rand(6, 5))
    loaded = load_pt2(saved(tmp_path, Apart(), rows, shapes=({0: Dim("one")}, {0: Dim("other")})))
    ones = {"x": np.ones((3, 4), np.float32), "y": np.ones((3, 5), np.float32)}
    assert {name: value.tolist() for name, value in loaded.run(ones).items()} == {"x_sum": [4] * 3, "y_sum": [5] * 3}


def test_inputs_by_keyword_become_plain_ones(tmp_path):
    module = built(Two)
    shapes = {name: {0: Dim("batch")} for name in ROWS}
    loaded = load_pt2(saved(tmp_path, module, (), dict(reversed(ROWS.items())), shapes=shapes))
    assert {item.name for item in loaded.signature.inputs} == {"zeta", "alpha"}
    got = loaded.run({name: value.numpy() for name, value in ROWS.items()})
    with torch.no_grad():
        np.testing.assert_allclose(got["zz"], module(**ROWS)["zz"].numpy(), rtol=1e-5, atol=1e-6)
    (tmp_path / "again.pt2").write_bytes(loaded.to_bytes())
    assert load_pt2(tmp_path / "again.pt2").digest == loaded.digest


def test_inputs_in_a_dictionary_become_plain_ones(tmp_path):
    class Table(nn.Module):
        def forward(self, table):
            return table["b"] * 2 + table["a"]

    table = {"b": torch.rand(8, 4), "a": torch.rand(8, 4)}
    shapes = ({name: {0: Dim("batch")} for name in table},)
    loaded = load_pt2(saved(tmp_path, Table(), (table,), shapes=shapes))
    assert [item.name for item in loaded.signature.inputs] == ["table_b", "table_a"]
    got = loaded.run({f"table_{name}": value.numpy() for name, value in table.items()})["output"]
    np.testing.assert_allclose(got, (table["b"] * 2 + table["a"]).numpy(), rtol=1e-6)


def test_outputs_may_be_named(tmp_path):
    path = saved(tmp_path, Two(), tuple(ROWS.values()))
    assert [item.name for item in load_pt2(path, ("p", "q")).signature.outputs] == ["p", "q"]
    with pytest.raises(ModelError, match="names 1 outputs, the model has 2"):
        load_pt2(path, ("p",))


class Doubling(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x, y=None):
        return self.form(x)


REFUSED = {
    "a batch in a view": (lambda x: x.reshape(2, -1) * 2, (torch.rand(2, 4),), None, "batch size is fixed to 2"),
    "an input of nothing": (lambda x: x * 2, (torch.rand(2, 4), None), None, "input number 2 is None: not a tensor"),
    "a number as input": (lambda x: x * 2, (torch.rand(2, 4), 3), None, "input number 2 is 3: not a tensor"),
    "a scalar": (lambda x: x.reshape(1, 1), (torch.tensor(1.0),), None, "'x' is not a tensor with a batch dimension"),
    "a dynamic length": (
        lambda x: x.sum(1),
        (torch.rand(2, 5, 4),),
        ({0: Dim("batch"), 1: Dim("length")},),
        "dimension 1 of its input 'x' is dynamic",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_take_rows_is_refused_with_the_reason(tmp_path, case):
    form, args, shapes, message = REFUSED[case]
    path = saved(tmp_path, Doubling(form), args, shapes=shapes)
    with pytest.raises(ModelError, match=message) as caught:
        load_pt2(path)
    assert str(path) in caught.value.message
    assert "export it with" in caught.value.hint


def test_training_form_is_refused(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    torch.export.save(torch.export.export(module, (torch.rand(2, 4),), strict=False), tmp_path / "train.pt2")
    with pytest.raises(ModelError, match=r"train\.pt2: the node 'batch_norm'"):
        load_pt2(tmp_path / "train.pt2")


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "model.pt2"
    with pytest.raises(ModelError, match=r"model\.pt2"):
        load_pt2(path)
    path.write_bytes(b"not a zip at all")
    with pytest.raises(ModelError, match=r"model\.pt2"):
        load_pt2(path)
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(ModelError, match=r"model\.pt2"):
        load_pt2(path)


def test_an_archive_that_was_cut_is_refused(tmp_path):
    path = saved(tmp_path, Two(), tuple(ROWS.values()))
    content = path.read_bytes()
    for length in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            load_pt2(path)


def test_a_pickle_is_not_opened(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weights": Payload()}, tmp_path / "model.pt2")
    with pytest.raises((UnsafeFileError, ModelError)):
        load_pt2(tmp_path / "model.pt2")
    assert not (tmp_path / "ran").exists()
