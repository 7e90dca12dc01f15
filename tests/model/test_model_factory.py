from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import exported
from torch import nn

from compress.errors import ModelError
from compress.model.core import TensorInfo
from compress.model.factory import build_module, export_module
from compress.recipe import ModelConfig

X = {"x": np.zeros((2, 4), np.float32)}

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.dropout = nn.Dropout()
    def forward(self, x):
        return self.dropout(self.layer(x))

def build(width: int = 3):
    return Net(width)

def nothing():
    return {"not": "a module"}

def raising(width: int = 3):
    inner(width)

def inner(width):
    raise RuntimeError(f"no {width} today")
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "net.py").write_text(SOURCE)
    return tmp_path


def config(source="net.py:build", **values):
    return ModelConfig.model_validate({"source": source, **values})


def test_a_factory_is_called_with_its_arguments_and_put_in_eval_form(source):
    module = build_module(config(arguments={"width": 7}), source)
    assert module.layer.out_features == 7
    assert not any(part.training for part in module.modules())
    assert build_module(config(), source).layer.out_features == 3


def test_weights_are_loaded_into_what_the_factory_builds(source):
    weights = {"layer.weight": torch.full((3, 4), 2.0), "layer.bias": torch.arange(3.0)}
    torch.save(weights, source / "w.pth")
    module = build_module(config(weights="w.pth"), source)
    assert torch.equal(module.layer.weight, weights["layer.weight"])
    assert torch.equal(module.layer.bias, weights["layer.bias"])


WRONG = {
    "no file": ("nte.py:build", "nte.py: No such file", "did you mean 'net.py'?"),
    "no function": ("net.py:biuld", "net.py has no function 'biuld'", "did you mean 'build'?"),
    "no module": ("no_such_package.models:build", "there is no module 'no_such_package'", "beside the recipe"),
    "no module returned": (
        "net.py:nothing",
        "net.py:nothing returned a dict, not a torch.nn.Module",
        "return the module",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_source_is_told(source, case):
    named, message, hint = WRONG[case]
    with pytest.raises(ModelError) as caught:
        build_module(config(named), source)
    assert message in caught.value.message
    assert "model.source" in caught.value.message
    assert hint in caught.value.hint


def test_a_factory_that_raises_is_told_with_file_and_line(source):
    line = SOURCE.splitlines().index('    raise RuntimeError(f"no {width} today")') + 1
    with pytest.raises(ModelError) as caught:
        build_module(config("net.py:raising"), source)
    assert "model.source" in caught.value.message
    assert "RuntimeError: no 3 today" in caught.value.message
    assert f"net.py, line {line})" in caught.value.message


def test_an_argument_that_the_factory_does_not_take_is_told_with_what_it_takes(source):
    with pytest.raises(ModelError, match="unexpected keyword argument 'widht'") as caught:
        build_module(config(arguments={"widht": 7}), source)
    assert "build(width: int = 3)" in caught.value.hint


def test_a_file_that_does_not_import_is_told_with_the_line(source):
    (source / "broken.py").write_text("import torch\n\nvalue = 1 / 0\n")
    with pytest.raises(ModelError, match=r"ZeroDivisionError.*line 3"):
        build_module(config("broken.py:build"), source)


class Plain(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.answer = forward

    def forward(self, x):
        return self.answer(x)


def branching(x):
    if x.sum() > 0:
        return x
    return -x


def test_control_flow_on_values_is_told_with_the_line():
    with pytest.raises(ModelError, match=r"model\.py:build: the model does not export: ") as caught:
        exported(Plain(branching), X)
    assert "data-dependent" in caught.value.message
    line = branching.__code__.co_firstlineno + 1
    assert f"(test_model_factory.py, line {line}: if x.sum() > 0:)" in caught.value.message
    assert "without Python control flow" in caught.value.hint


def test_a_fixed_batch_is_told():
    with pytest.raises(ModelError, match=r"does not export: .*batch") as caught:
        exported(Plain(lambda x: x.reshape(2, 4) * 2), X)
    assert "without a fixed batch size" in caught.value.hint


def test_a_failing_operator_is_told_with_the_line():
    def mismatched(x):
        return x @ torch.ones(3, 3)

    with pytest.raises(ModelError, match=f"line {mismatched.__code__.co_firstlineno + 1}: return x @ torch"):
        exported(Plain(mismatched), X)


def test_the_users_line_is_found_wherever_the_project_lies(tmp_path):
    """Not only outside folders that are called like ours."""
    folder = tmp_path / "torch" / "compress" / "model"
    folder.mkdir(parents=True)
    (folder / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
        "        return x if x.max() > 0 else -x\ndef build():\n    return Net()\n"
    )
    with pytest.raises(ModelError, match=r"net\.py, line 4"):
        exported(build_module(config(), folder), X)


NOT_ROWS = {
    "no batch": (lambda x: x.mean(), r"\[\]"),
    "one row for all": (lambda x: x.mean(0), r"\[4\]"),
    "batch in the middle": (lambda x: x.T, r"\[4, batch\]"),
    "every row with every row": (lambda x: x @ x.T, r"\[batch, batch\]"),
    "rows twice": (lambda x: torch.cat([x, x]), r"\[2\*batch, 4\]"),
}


@pytest.mark.parametrize("case", NOT_ROWS)
def test_an_output_is_one_row_for_each_row(case):
    answer, shape = NOT_ROWS[case]
    with pytest.raises(ModelError, match=rf"the output 'output' has shape {shape}, which is not one row"):
        exported(Plain(answer), X)


@pytest.mark.parametrize("value", [None, 3, "text"])
def test_an_output_is_a_tensor(value):
    with pytest.raises(ModelError, match=r"(the output 'other' is not a tensor|does not export)"):
        exported(Plain(lambda x: {"score": x, "other": value}), X)


def test_names_of_outputs_are_given_in_order():
    model = exported(Plain(lambda x: {"b": x * 2, "a": x * 3}), X, outputs=("double", "triple"))
    got = model.run({"x": np.ones((1, 4), np.float32)})
    assert (got["double"][0, 0], got["triple"][0, 0]) == (2, 3)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (("one",), "model.outputs names 1 outputs, the model has 2"),
        (("a", "a"), "'a' is the name of 2 inputs or outputs"),
        (("a", "x"), "'x' is the name of 2 inputs or outputs"),
    ],
)
def test_names_of_outputs_must_fit(outputs, message):
    with pytest.raises(ModelError, match=message):
        exported(Plain(lambda x: (x * 2, x * 3)), X, outputs=outputs)


def test_an_output_with_the_name_of_an_input_is_told_how_to_rename_it():
    with pytest.raises(ModelError, match="'x' is the name of 2") as caught:
        exported(Plain(lambda x: {"x": x * 2}), X)
    assert "model.outputs" in caught.value.hint


class Optional(nn.Module):
    def forward(self, x, mask=None, codes=None):
        x = x if mask is None else x * mask
        return x if codes is None else x + codes


def info(*names):
    return [TensorInfo(name, (4,), "float32") for name in names]


def test_the_only_input_may_have_any_name():
    model = export_module(Plain(lambda x: x * 2), info("features"), (), "w")
    assert model.signature.inputs == (TensorInfo("x", (4,), "float32"),)


def test_an_optional_input_is_fed_by_its_name():
    model = export_module(Optional(), info("mask", "x"), (), "w")
    assert [item.name for item in model.signature.inputs] == ["x", "mask"]
    ones = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(model.run({"x": ones * 3, "mask": ones * 2})["output"], ones * 6)


def test_an_optional_input_is_not_taken_for_another_one_before_it():
    with pytest.raises(ModelError, match="optional input 'mask', which stands before others"):
        export_module(Optional(), info("x", "codes"), (), "w")


def test_a_needed_input_that_nothing_feeds_is_told():
    with pytest.raises(ModelError, match="nothing feeds the model's input 'x'") as caught:
        export_module(Optional(), info("mask", "codes"), (), "w")
    assert "x, mask, codes" in caught.value.hint


def test_an_input_that_the_model_does_not_have_is_told():
    with pytest.raises(ModelError, match="the model has no input 'cods'") as caught:
        export_module(Optional(), info("x", "cods"), (), "w")
    assert "did you mean 'codes'?" in caught.value.hint


def test_a_model_without_inputs_is_told():
    class Constant(nn.Module):
        def forward(self):
            return torch.ones(2, 2)

    with pytest.raises(ModelError, match="the model has no input"):
        export_module(Constant(), [], (), "w")
