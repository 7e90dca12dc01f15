from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TINY, built, exported
from torch import nn

from compress.calibrate import Method, Ranges, calibrate, stream
from compress.calibrate.method import METHODS
from compress.calibrate.observers import MinMax
from compress.errors import DataError, InternalError
from compress.model import watch
from compress.model.layers import layers


def parts(arrays, size):
    rows = len(next(iter(arrays.values())))
    return [{name: array[start : start + size] for name, array in arrays.items()} for start in range(0, rows, size)]


@pytest.mark.parametrize("name", TINY)
def test_streaming_gives_what_one_batch_gives(workshop, name):
    made = workshop.tiny(name)
    rows = made.rows(64)
    whole = calibrate(made.model, [rows])
    for size in (1, 7, 64):
        streamed = calibrate(made.model, parts(rows, size))
        assert streamed.values.keys() == whole.values.keys()
        for value, bounds in whole.values.items():
            np.testing.assert_allclose(streamed.values[value], bounds, rtol=1e-5, atol=1e-6)
        assert streamed.source == "min-max over 64 rows"


@pytest.mark.parametrize("name", TINY)
def test_every_value_around_a_layer_has_a_range(workshop, name):
    made = workshop.tiny(name)
    ranges = calibrate(made.model, [made.rows(8)])
    for layer in layers(made.model):
        for value in {layer.node, layer.output} | ({layer.input} if layer.operator != "embedding" else set()):
            low, high = ranges.of(value)
            assert low <= 0 <= high
            assert low < high


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_same_whatever_the_batch(workshop, name):
    made = workshop.tiny("conv")
    rows = made.rows(48)
    whole = calibrate(made.model, [rows], Method(name))
    for size in (5, 16):
        streamed = calibrate(made.model, parts(rows, size), Method(name))
        for value, (low, high) in whole.values.items():
            # A kernel may sum in another order for another batch: a number on an edge then lies in the next bin.
            np.testing.assert_allclose(streamed.values[value], (low, high), atol=(high - low) * 2e-3 + 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_goes_beyond_what_was_seen(workshop, name):
    made = workshop.tiny("attention")
    rows = made.rows(32)
    widest = calibrate(made.model, [rows])
    found = calibrate(made.model, [rows], Method(name, percentile=99))
    assert found.source == f"{Method(name, percentile=99)} over 32 rows"
    assert found.values.keys() == widest.values.keys()
    for value, (low, high) in found.values.items():
        assert widest.values[value][0] <= low <= high <= widest.values[value][1]
    # On few numbers the least error may be that of the whole range.
    if name in ("percentile", "moving-average"):
        assert found.digest != widest.digest


def test_ranges_are_those_of_the_values(workshop):
    made = workshop.tiny("mlp")
    rows = made.rows(50)
    ranges = calibrate(made.model, parts(rows, 8))
    module = built(TINY["mlp"][0])
    with torch.no_grad():
        first = module.up(torch.from_numpy(rows["features"]))
    by_name = {layer.name: layer for layer in layers(made.model)}
    up = by_name["up"]
    assert ranges.values["features"] == (rows["features"].min(), rows["features"].max())
    np.testing.assert_allclose(ranges.values[up.node], [first.min(), first.max()], rtol=1e-5)
    np.testing.assert_allclose(ranges.values[up.output], [0, first.max()], rtol=1e-5)
    assert by_name["middle"].input == up.output


def test_the_digest_is_that_of_the_ranges_and_of_nothing_else(workshop):
    made = workshop.tiny("two-ways")
    rows = made.rows(40)
    one = calibrate(made.model, parts(rows, 8))
    assert one.digest == calibrate(made.model, parts(rows, 8)).digest
    assert one.digest == calibrate(made.model, list(reversed(parts(rows, 8)))).digest
    wider = {name: array * 1.5 for name, array in rows.items()}
    assert one.digest != calibrate(made.model, parts(wider, 8)).digest
    assert Ranges({"a": (0.0, 1.0)}, "x").digest == Ranges({"a": (-0.0, 1.0)}, "y").digest
    assert Ranges({"a": (0.0, 1.0)}, "x").digest != Ranges({"b": (0.0, 1.0)}, "x").digest


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_row_that_is_not_finite_is_told_whichever_batch_holds_it(workshop, batch, value):
    made = workshop.tiny("mlp")
    batches = parts(made.rows(32), 8)
    batches[batch]["features"][3, 5] = value
    with pytest.raises(DataError, match=r"calibration: the value '\w+' of the graph is NaN or infinite") as caught:
        calibrate(made.model, batches)
    assert "data.missing" in caught.value.hint


def test_missing_values_that_the_model_replaces_are_fine():
    class Filling(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(torch.where(torch.isnan(x), 0.0, x).clamp(-9, 9))

    rows = {"x": np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)}
    model = exported(built(Filling), rows)
    rows["x"][3, 1], rows["x"][9, 2] = np.nan, np.inf
    ranges = calibrate(model, parts(rows, 4))
    (layer,) = layers(model)
    assert ranges.of(layer.input) == (pytest.approx(np.nanmin(rows["x"])), 9.0)
    assert "x" not in ranges.values


def test_no_rows_are_told(workshop):
    with pytest.raises(DataError, match="there are no rows"):
        calibrate(workshop.tiny("mlp").model, [])


@pytest.mark.parametrize(
    ("seen", "given"),
    [((1.0, 3.0), (0.0, 3.0)), ((-3.0, -1.0), (-3.0, 0.0)), ((-1.0, 2.0), (-1.0, 2.0)), ((0.0, 0.0), (0.0, 1.0))],
)
def test_a_range_holds_zero_and_has_a_width(seen, given):
    assert Ranges({"a": seen}, "test").of("a") == given


def test_a_value_that_was_not_seen_is_a_fault_of_the_program():
    with pytest.raises(InternalError, match="no range was observed for the value 'b'"):
        Ranges({"a": (0.0, 1.0)}, "test").of("b")


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(24))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def test_memory_is_that_of_a_few_values_of_one_batch(monkeypatch):
    """Counts the activations that are alive whenever one of them is seen, and between batches."""
    rows, seen, most, between = 16, [], [], []
    model = exported(built(Deep), {"x": np.zeros((rows, 64), np.float32)})

    def alive():
        return sum(reference() is not None for reference in seen)

    class Counting(MinMax):
        def update(self, value, count):
            if value.shape == (rows, 64):
                seen.append(weakref.ref(value))
                most.append(alive())
            super().update(value, count)

    def batches():
        for seed in range(4):
            between.append(alive())
            yield {"x": np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)}

    monkeypatch.setattr(Method, "observer", lambda method: Counting())
    monkeypatch.setattr(stream, "MinMax", Counting)
    calibrate(model, batches())
    assert len(seen) == 4 * (1 + 2 * 24)
    assert max(most) <= 3
    assert max(between) <= 2


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3 * 64 * 4, 3), (2**20, 16)])
def test_a_batch_whose_values_are_large_passes_in_parts(monkeypatch, limit, most):
    seen = []
    model = exported(built(Deep), {"x": np.zeros((16, 64), np.float32)})
    rows = {"x": np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)}
    whole = calibrate(model, parts(rows, 16))

    class Counting(MinMax):
        def update(self, value, count):
            assert len(value) == count
            seen.append(count)
            super().update(value, count)

    monkeypatch.setattr(watch, "_LARGEST_VALUE_BYTES", limit)
    monkeypatch.setattr(Method, "observer", lambda method: Counting())
    found = calibrate(model, parts(rows, 16))
    assert max(seen) == most
    assert sum(seen) == 32 * (1 + 2 * 24)
    assert found.source == "min-max over 32 rows"
    for name, bounds in whole.values.items():
        np.testing.assert_allclose(found.values[name], bounds, rtol=1e-5, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(0, 5))
def test_what_is_calibrated_is_what_the_graph_answers(rows, seed):
    model = exported(built(nn.Sigmoid), {"input": np.zeros((2, 3), np.float32)})
    values = {"input": np.random.default_rng(seed).standard_normal((rows, 3)).astype(np.float32)}
    answers = model.run(values)["output"]
    assert calibrate(model, [values]).values["sigmoid"] == (answers.min(), answers.max())
