from __future__ import annotations

from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from tiny_models import built
from torch import nn

from compress.errors import ModelError, UnsafeFileError
from compress.model.weights import load_into, read_weights


def net():
    return nn.Sequential(OrderedDict(body=nn.Linear(4, 3), norm=nn.BatchNorm1d(3), head=nn.Linear(3, 2)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(6, 3)
        self.body = nn.Linear(3, 3)
        self.head = nn.Linear(3, 6, bias=False)
        self.head.weight = self.table.weight


def saved(path, weights):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


@pytest.fixture(params=[".safetensors", ".pth", ".pt"])
def path(tmp_path, request):
    return tmp_path / f"weights{request.param}"


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_arrive_as_they_were_saved(path):
    trained, fresh = built(net, seed=1), built(net, seed=2)
    assert not equal(trained.state_dict(), fresh.state_dict())
    load_into(fresh, saved(path, dict(trained.state_dict())))
    assert equal(trained.state_dict(), fresh.state_dict())


def test_the_content_counts_and_not_the_ending(tmp_path):
    weights = dict(built(net).state_dict())
    safetensors.torch.save_file(weights, tmp_path / "named.pth")
    torch.save(weights, tmp_path / "named.safetensors")
    assert equal(read_weights(tmp_path / "named.pth"), weights)
    assert equal(read_weights(tmp_path / "named.safetensors"), weights)


def test_a_checkpoint_may_wrap_its_weights(tmp_path):
    weights = built(net).state_dict()
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "checkpoint.pth")
    assert equal(read_weights(tmp_path / "checkpoint.pth"), dict(weights))


@pytest.mark.parametrize("content", [[torch.ones(2)], {"a": 3}, {"a": [torch.ones(2)]}, torch.ones(2)], ids=repr)
def test_what_is_no_table_of_tensors_is_told(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"weights\.pth"):
        read_weights(tmp_path / "weights.pth")


def changed(path, change):
    weights = dict(built(net).state_dict())
    change(weights)
    return saved(path, weights)


MISFITS = {
    "missing": (lambda weights: weights.pop("head.bias"), "missing: head.bias"),
    "unknown": (lambda weights: weights.update(tail=torch.ones(1)), "unknown to the model: tail"),
    "other shape": (
        lambda weights: weights.update({"head.weight": torch.ones(2, 5)}),
        r"other shape: head.weight is \(2, 5\), the model wants \(2, 3\)",
    ),
    "transposed": (
        lambda weights: weights.update({"head.weight": torch.ones(3, 2)}),
        r"other shape: head.weight is \(3, 2\), the model wants \(2, 3\)",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_named(path, case):
    change, message = MISFITS[case]
    module = built(net)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ModelError, match=f"the weights do not fit the model; {message}") as caught:
        load_into(module, changed(path, change))
    assert str(path) in caught.value.message
    assert "model.source" in caught.value.hint
    assert equal(module.state_dict(), before)


def test_all_that_does_not_fit_is_told_at_once_and_long_lists_are_cut(tmp_path):
    weights = {f"layer{number}.weight": torch.ones(1) for number in range(9)}
    with pytest.raises(ModelError) as caught:
        load_into(built(net), saved(tmp_path / "w.pth", weights))
    assert "missing: body.bias, body.weight, head.bias, head.weight, norm.bias and 4 more" in caught.value.message
    assert "unknown to the model: layer0.weight" in caught.value.message
    assert "and 4 more" in caught.value.message


def test_tied_weights_stay_tied(path):
    trained, fresh = built(Tied, seed=1), built(Tied, seed=2)
    weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    load_into(fresh, saved(path, weights))
    assert fresh.head.weight is fresh.table.weight
    assert torch.equal(fresh.head.weight, trained.head.weight)


@pytest.mark.parametrize("left_out", ["head.weight", "table.weight"])
def test_a_file_may_hold_a_tied_weight_once(path, left_out):
    """As `safetensors.torch.save_model` writes it."""
    trained, fresh = built(Tied, seed=1), built(Tied, seed=2)
    weights = {name: tensor.clone() for name, tensor in trained.state_dict().items() if name != left_out}
    load_into(fresh, saved(path, weights))
    assert equal(fresh.state_dict(), trained.state_dict())


def test_what_save_model_writes_is_read(tmp_path):
    trained, fresh = built(Tied, seed=1), built(Tied, seed=2)
    safetensors.torch.save_model(trained, str(tmp_path / "w.safetensors"))
    load_into(fresh, tmp_path / "w.safetensors")
    assert equal(fresh.state_dict(), trained.state_dict())


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_file_that_was_cut_is_told(path, keep):
    saved(path, dict(built(net).state_dict()))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ModelError, match=path.name):
        read_weights(path)


def test_a_missing_file_is_told(path):
    with pytest.raises(ModelError, match=path.name):
        read_weights(path)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": torch.ones(1), "b": Payload()}, tmp_path / "w.pth")
    with pytest.raises(UnsafeFileError, match=r"w\.pth"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
