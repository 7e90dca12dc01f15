from __future__ import annotations

import copy
import hashlib
import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import TINY, built, exported, tiny
from torch import nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.model.core import MAX_BATCH, Model, TensorInfo, check_eval, example_inputs, state, tie
from compress.model.cost import cost
from compress.model.factory import export_module, model_from_program
from compress.model.pt2 import load_pt2

X = {"x": np.zeros((2, 4), np.float32)}


class Answering(nn.Module):
    """Answers in the given form."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(x)


@pytest.mark.parametrize("name", TINY)
def test_the_graph_answers_like_the_module_for_every_batch(workshop, name):
    made = workshop.tiny(name)
    module = built(TINY[name][0])
    for count in (1, 2, 3, 7, 300):
        rows = made.rows(count, seed=count)
        got = made.model.run(rows)
        with torch.no_grad():
            wanted = module(*[torch.from_numpy(rows[item.name]) for item in made.model.signature.inputs])
        wanted = wanted if isinstance(wanted, dict) else {"output": wanted}
        assert list(got) == list(wanted)
        for output, tensor in wanted.items():
            np.testing.assert_allclose(got[output], tensor.numpy(), rtol=1e-5, atol=1e-6)


def test_rows_do_not_depend_on_how_they_are_dealt_to_batches(workshop):
    made = workshop.tiny("attention")
    rows = made.rows(11)
    whole = made.model.run(rows)["logit"]
    for batch in (1, 4, 11, 256):
        np.testing.assert_allclose(made.model.run(rows, batch=batch)["logit"], whole, rtol=1e-5, atol=1e-6)


FORMS = {
    "a tensor": (lambda x: x * 2, ["output"], [(4,)]),
    "without width": (lambda x: x.sum(1), ["output"], [()]),
    "a dictionary": (lambda x: {"zz": x * 2, "aa": x.sum(1)}, ["zz", "aa"], [(4,), ()]),
    "a tuple": (lambda x: (x * 2, x.sum(1)), ["output_0", "output_1"], [(4,), ()]),
    "a tuple inside a tuple": (lambda x: (x * 2, (x + 1, x + 2)), ["output_0", "output_1_0", "output_1_1"], [(4,)] * 3),
    "a list inside a dictionary": (lambda x: {"head": [x + 1, x + 2]}, ["head_0", "head_1"], [(4,)] * 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_have_real_names_and_the_shape_of_one_row(form):
    answer, names, shapes = FORMS[form]
    outputs = exported(Answering(answer), X).signature.outputs
    assert [item.name for item in outputs] == names
    assert [item.shape for item in outputs] == shapes
    assert {item.dtype for item in outputs} == {"float32"}


def test_inputs_keep_name_order_shape_and_dtype():
    class Three(nn.Module):
        def forward(self, zeta, alpha, codes):
            return zeta.sum((1, 2)) + alpha + codes

    arrays = {
        "alpha": np.zeros(2, np.float32),
        "codes": np.zeros(2, np.int64),
        "zeta": np.zeros((2, 3, 4), np.float32),
    }
    model = exported(Three(), arrays)
    assert model.signature.inputs == (
        TensorInfo("zeta", (3, 4), "float32"),
        TensorInfo("alpha", (), "float32"),
        TensorInfo("codes", (), "int64"),
    )
    rows = {name: np.arange(array.size, dtype=array.dtype).reshape(array.shape) for name, array in arrays.items()}
    np.testing.assert_allclose(model.run(rows)["output"], [66, 210 + 2])


def test_arguments_are_put_in_order_and_cast(workshop):
    model = workshop.tiny("two-ways").model
    zeta, alpha = model.arguments({"alpha": np.ones((3, 4), np.float64), "zeta": np.ones((3, 8), np.int8)})
    assert (zeta.shape, alpha.shape) == ((3, 8), (3, 4))
    assert zeta.dtype == alpha.dtype == torch.float32


def test_examples_are_synthetic_and_always_the_same():
    inputs = (TensorInfo("a", (3,), "float32"), TensorInfo("b", (2,), "int64"), TensorInfo("c", (), "float16"))
    one, other = example_inputs(inputs, 5), example_inputs(inputs, 5)
    assert [tuple(tensor.shape) for tensor in one] == [(5, 3), (5, 2), (5,)]
    assert [tensor.dtype for tensor in one] == [torch.float32, torch.int64, torch.float16]
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
    assert one[0].unique().numel() > 1
    assert not one[1].any()


def archive(model):
    with zipfile.ZipFile(io.BytesIO(model.to_bytes())) as members:
        return {name: members.read(name) for name in members.namelist()}


@pytest.mark.parametrize("name", ["attention", "two-ways"])
def test_an_archive_holds_no_path_and_no_source_line(workshop, name):
    members = archive(workshop.tiny(name).model)
    assert len(members) > 5
    for content in members.values():
        for word in (__file__, "tiny_models.py", str(Path.cwd()), "def forward", "stack_trace", "unflatten(-1"):
            assert word.encode() not in content


def test_an_archive_does_not_hold_the_rows_that_another_one_was_saved_with(tmp_path):
    secret = 1234.5678
    program = torch.export.export(
        nn.Linear(4, 2).eval(), (torch.full((2, 4), secret),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, tmp_path / "customer.pt2")
    needle = struct.pack("<f", secret)
    assert needle in (tmp_path / "customer.pt2").read_bytes()
    assert needle not in model_from_program(program, (), "customer").to_bytes()
    assert needle not in load_pt2(tmp_path / "customer.pt2").to_bytes()


def test_equal_models_give_equal_bytes_and_digests(workshop):
    one, other = workshop.tiny("attention").model, tiny("attention").model
    assert one is not other
    assert one.digest == other.digest
    assert one.to_bytes() == one.to_bytes() == other.to_bytes()


def test_writing_an_archive_leaves_the_program_as_it_was(workshop):
    model = workshop.tiny("mlp").model
    before = [node.meta.get("stack_trace") for node in model.program.graph.nodes]
    inputs = model.program._example_inputs
    model.to_bytes()
    assert [node.meta.get("stack_trace") for node in model.program.graph.nodes] == before
    assert any(before)
    assert model.program._example_inputs is inputs


def test_another_process_gives_the_same_digest_and_bytes(workshop):
    program = (
        "import hashlib\nfrom tiny_models import tiny\nmodel = tiny('two-ways').model\n"
        "print(model.digest, hashlib.sha256(model.to_bytes()).hexdigest())"
    )
    places = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    model = workshop.tiny("two-ways").model
    assert done.stdout.split() == [model.digest, hashlib.sha256(model.to_bytes()).hexdigest()]


def test_the_digest_changes_with_every_weight_and_buffer(workshop):
    model = workshop.tiny("conv").model
    tensors = state(model.program)
    assert {"stem.weight", "stem_norm.running_mean", "head.bias"} <= set(tensors)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        program = copy.deepcopy(model.program)
        program.state_dict[name].data.view(-1)[0] += 1e-3
        assert Model(program, model.signature, model.lineage).digest != model.digest, name


def test_the_digest_tells_names_and_graphs_apart_but_not_lineages(workshop):
    model = workshop.tiny("mlp").model
    renamed = exported(built(TINY["mlp"][0]), workshop.tiny("mlp").rows(2), outputs=("other",))
    assert renamed.digest != model.digest
    assert model.with_program(model.program, "nothing").digest == model.digest
    assert exported(Answering(lambda x: x * 2), X).digest != exported(Answering(lambda x: x * 3), X).digest


def test_a_step_is_added_to_the_lineage_of_a_new_model(workshop):
    model = workshop.tiny("mlp").model
    after = model.with_program(model.program, "prune")
    assert (model.lineage, after.lineage) == (("model.py:build",), ("model.py:build", "prune"))
    assert after.signature == model.signature


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, codes):
        return self.head(torch.tanh(self.inner(self.table(codes)).mean(1)))


def test_tied_weights_are_one_tensor_before_and_behind_an_archive(tmp_path):
    codes = np.array([[1, 2, 3], [4, 5, 6]])
    model = exported(built(Tied), {"codes": codes})
    (tmp_path / "tied.pt2").write_bytes(model.to_bytes())
    loaded = load_pt2(tmp_path / "tied.pt2")
    for each in (model, loaded):
        tensors = each.program.state_dict
        assert tensors["head.weight"] is tensors["table.weight"]
        assert cost(each).parameters == 10 * 4 + 4 * 4 + 4
    np.testing.assert_array_equal(model.run({"codes": codes})["output"], loaded.run({"codes": codes})["output"])


def test_tying_leaves_views_of_another_shape_and_empty_tensors_apart():
    program = exported(nn.Linear(4, 4).eval(), {"input": np.zeros((2, 4), np.float32)}).program
    base = torch.arange(16.0)
    views = {"a": base.view(4, 4), "b": base.view(4, 4), "c": base.view(2, 8), "d": base.view(4, 4).T}
    program._state_dict.clear()
    program._state_dict.update({**views, "e": torch.empty(0), "f": torch.empty(0)})
    tie(program)
    tensors = program.state_dict
    assert tensors["a"] is tensors["b"]
    assert len({id(tensor) for tensor in tensors.values()}) == 5


def in_training(module, *shape):
    return torch.export.export(module, (torch.rand(2, *shape),), strict=False)


class AlwaysDropping(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)


TRAINING = {
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train(), (4,), "'dropout'"),
    "normalisation": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train(), (4,), "'batch_norm'"),
    "attention": (AlwaysDropping, (2, 3, 4), "'scaled_dot_product_attention'"),
    "switched on by hand": (lambda: Answering(lambda x: F.dropout(x, 0.5, training=True)).eval(), (4,), "'dropout'"),
}


@pytest.mark.parametrize("form", TRAINING)
def test_a_graph_in_training_form_is_refused_by_its_node(form):
    make, shape, node = TRAINING[form]
    program = in_training(make(), *shape)
    with pytest.raises(ModelError, match=rf"here: the node {node} \(aten\..*\) is in training form") as caught:
        check_eval(program, "here")
    assert "model.eval()" in caught.value.hint
    with pytest.raises(ModelError, match="training form"):
        model_from_program(program, (), "here")


def test_eval_form_passes_with_dropout_and_normalisation_in_it():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).eval()
    check_eval(in_training(module, 4), "here")


def test_the_batch_may_be_as_large_as_promised():
    model = export_module(nn.Linear(1, 1).eval(), [TensorInfo("input", (1,), "float32")], (), "w")
    rows = {"input": np.zeros((MAX_BATCH, 1), np.float32)}
    assert model.run(rows, batch=MAX_BATCH)["output"].shape == (MAX_BATCH, 1)
