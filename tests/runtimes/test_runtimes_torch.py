"""Torch as a runtime: layers in half precision for a GPU, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from inside import holds
from tiny_models import answers, engine, exported, sqnr_db, target
from torch import nn

from compress.calibrate import Ranges
from compress.errors import LoweringError
from compress.model.layers import layers
from compress.recipe import BUILTIN_SCHEMES
from compress.target import Target

HALF = BUILTIN_SCHEMES["float16"]
GPU = Target.model_validate({"schema": 1, "runtime": "torch", "provider": "cuda"})


@pytest.mark.parametrize("name", ["conv", "attention"])
def test_layers_become_half_and_answers_stay(workshop: Any, name: str) -> None:
    """The same graph runs on a CPU, only slower."""
    file = engine("torch").quantize(workshop.lowered("torch", name), HALF, None, GPU)
    model, rows = workshop.tiny(name, fold=True).model, workshop.tiny(name).rows(40, seed=1)
    assert {item.precision for item in file.outcomes} == {"float16"}
    for layer in layers(model):
        assert holds("torch", file.data, model, layer, np.float16)
        assert not holds("torch", file.data, model, layer, np.float32)
    wanted, got = model.run(rows), answers("torch", file.data, rows)
    for output, array in wanted.items():
        assert got[output].dtype == np.float32
        assert sqnr_db(array, got[output]) > 45


def test_an_excluded_layer_stays_float_and_says_so(workshop: Any) -> None:
    scheme = HALF.model_copy(update={"name": "mine", "exclude": ("middle",)})
    file = engine("torch").quantize(workshop.lowered("torch", "mlp"), scheme, None, GPU)
    told = {item.layer: (item.precision, item.reason) for item in file.outcomes}
    assert told["middle"] == ("float32", "excluded by 'middle'")
    assert told["up"] == ("float16", "")


def test_halves_take_half_the_room_where_weights_count() -> None:
    lowered = engine("torch").lower(exported(nn.Linear(128, 256).eval(), {"input": np.zeros((2, 128), np.float32)}))
    assert len(engine("torch").quantize(lowered, HALF, None, GPU).data) < 0.65 * len(lowered.data)


def test_a_raw_amount_that_no_half_can_hold_reaches_the_normalisation(workshop: Any) -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, income: Any) -> Any:
            return self.head((income - 250_000.0) / 90_000.0)

    rows = {"income": np.random.default_rng(0).uniform(70_000, 500_000, (20, 3)).astype(np.float32)}
    model = exported(Raw().eval(), rows)
    file = engine("torch").quantize(engine("torch").lower(model), HALF, None, GPU)
    assert sqnr_db(model.run(rows)["output"], answers("torch", file.data, rows)["output"]) > 45


def test_halves_are_refused_on_a_cpu_with_the_reason(workshop: Any) -> None:
    with pytest.raises(LoweringError, match="several times slower than floats on a CPU") as error:
        engine("torch").quantize(workshop.lowered("torch", "mlp"), HALF, None, target("torch"))
    assert 'provider = "cuda"' in error.value.hint


def test_integers_are_not_offered(workshop: Any) -> None:
    assert not any(dtype.startswith("int") for dtype, _ in engine("torch").schemes)
    with pytest.raises(LoweringError, match="torch has no integers"):
        engine("torch").quantize(
            workshop.lowered("torch", "mlp"), BUILTIN_SCHEMES["int8-static"], Ranges({}, "none"), GPU
        )
