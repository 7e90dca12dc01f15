"""Whatever groups are cut, what comes out is a Model like any other: it learns, is saved, and becomes every file."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from prune_cases import EVERY
from prune_kit import ROWS, answers, difference, exported, gone_of, graph_of, rest, rows

from compress.model.core import Model
from compress.model.cost import cost
from compress.model.pt2 import load_pt2
from compress.passes.prune.groups import analyse, cut

# Converting takes seconds, and exporting a large graph does: by default one of each kind.
QUICK = ("residual", "dense_block", "u_net", "halves", "groups", "fused-chunk", "decoder", "tied", "patches")
LARGE = {"mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "resnet18", "vit_tiny", "minilm", "compact_bert"}
# LiteRT multiplies keys and values of a single head less exactly; a module that is built with one shows the same.
LOOSE = {"decoder": 3e-3}
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers.*")


def model_of(name):
    make, inputs = EVERY[name]
    return exported(make(), **inputs)


def any_cut(model: Model, seed: int) -> Model:
    """Cuts some of the groups that may be cut, anything of them but all."""
    random = np.random.default_rng(seed)
    groups = [group for group in analyse(model).prunable if random.random() < 0.7]
    return cut(model, {group.name: rest(group, gone_of(group, seed, random.uniform(0.1, 0.9))) for group in groups})


def feeds(model: Model, count: int = ROWS) -> dict[str, np.ndarray]:
    tensors = rows(model)
    return {item.name: tensor.numpy()[:count] for item, tensor in zip(model.signature.inputs, tensors, strict=True)}


def with_gradients(model: Model) -> set[str]:
    """Names of the parameters that a row reaches, tied ones under one name each."""
    module = graph_of(model)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    answer = module(*rows(model))
    sum(value.square().sum() for value in (answer.values() if isinstance(answer, dict) else [answer])).backward()
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert all(torch.isfinite(value).all() for value in found.values() if value is not None)
    return {name for name, value in found.items() if value is not None}


def ties(model: Model) -> set[frozenset[str]]:
    """Names that hold one tensor."""
    held: dict[int, set[str]] = {}
    for name, value in model.program.state_dict.items():
        held.setdefault(value.untyped_storage().data_ptr(), set()).add(name)
    return {frozenset(names) for names in held.values() if len(names) > 1}


def unless(quick):
    """Every case; those that are not of the quick ones are slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]


@pytest.mark.parametrize("name", unless(set(EVERY) - LARGE))
def test_any_cut_runs_learns_and_survives_saving(name, tmp_path):
    model = model_of(name)
    for seed in range(2 if name in QUICK else 1):
        small = any_cut(model, seed)
        assert cost(small).parameters < cost(model).parameters
        assert with_gradients(small) == with_gradients(model)
        assert ties(small) == ties(model)
        path = tmp_path / f"{seed}.pt2"
        path.write_bytes(small.to_bytes())
        again = load_pt2(path)
        assert ties(again) == ties(model) and cost(again).parameters == cost(small).parameters
        # The batch is open on both sides of the file, and rows do not meet.
        whole = answers(graph_of(small), rows(model))
        for count in (1, ROWS):
            found = list(again.run(feeds(model, count)).values())
            assert difference([torch.from_numpy(value) for value in found], [value[:count] for value in whole]) < 1e-5


@pytest.mark.parametrize("name", unless(QUICK))
def test_any_cut_becomes_an_onnx_file_with_an_open_batch(name):
    from compress.runtimes.onnxruntime.export import export

    small = any_cut(model_of(name), 3)
    wanted = small.run(feeds(small))
    session = onnxruntime.InferenceSession(export(small).data)
    for count in (1, ROWS):
        found = session.run(None, feeds(small, count))
        for values, output in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                values, wanted[output][:count], rtol=1e-4, atol=1e-4 * np.abs(wanted[output]).max()
            )


@pytest.mark.parametrize("name", unless(QUICK))
def test_any_cut_becomes_a_litert_file(name):
    pytest.importorskip("litert_torch")
    from ai_edge_litert.interpreter import Interpreter

    from compress.runtimes.litert.export import export

    small = any_cut(model_of(name), 4)
    wanted = small.run(feeds(small, 1))
    interpreter = Interpreter(model_content=export(small).data)
    run = interpreter.get_signature_runner()
    types = {key: detail["dtype"] for key, detail in run.get_input_details().items()}
    found = run(**{key: values.astype(types[key]) for key, values in feeds(small, 1).items()})
    assert set(found) == set(wanted)
    for output, values in found.items():
        bound = LOOSE.get(name, 1e-4) * np.abs(wanted[output]).max()
        np.testing.assert_allclose(values, wanted[output], rtol=1e-4, atol=bound)
