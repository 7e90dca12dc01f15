"""Passes one behind the other, as a recipe lists them: each takes what the one before left."""

from __future__ import annotations

import numpy as np
from prune_kit import exported
from rows_kit import check_like_any_other, dataset

from compress import zoo
from compress.model.cost import cost
from compress.model.layers import layers
from compress.passes.base import Context, run_pass
from compress.passes.two_four import is_2_4
from compress.runtimes.litert.export import export as export_litert
from compress.runtimes.onnxruntime.export import export as export_onnx

STEPS = [
    ("trim_vocabulary", {}),
    ("drop_layers", {"keep": 2}),
    ("low_rank", {"ratio": 0.6, "round_to": 1, "include": ["blocks.*"], "exclude": ["blocks.*.attention.*"]}),
    ("prune", {"ratio": 0.25, "round_to": 4, "include": ["blocks.*"]}),
    ("sparsify_2_4", {"include": ["blocks.*"]}),
]


def test_every_step_takes_what_the_one_before_left(tmp_path):
    model = exported(
        zoo.compact_bert(vocabulary=200, width=32, layers=3, heads=4, feed_forward=64, positions=12),
        input_ids=(8,),
        attention_mask=(8,),
    )
    random = np.random.default_rng(0)
    ids = random.integers(1, 30, (80, 8))
    mask = (np.arange(8) < random.integers(3, 9, (80, 1))).astype(np.int64)
    data = dataset({"input_ids": ids, "attention_mask": mask}, train=40, calibration=40)
    costs = [cost(model)]
    for kind, options in STEPS:
        result = run_pass(kind, model, data, Context(options=options))
        assert result.changed
        model = result.model
        costs.append(cost(model))
    assert [item.partition(":")[0] for item in model.lineage] == ["test", *(kind for kind, _ in STEPS)]
    macs = [item.macs for item in costs]
    # Trimming and zeroes multiply as much as before; the others less.
    assert macs[0] == macs[1] > macs[2] > macs[3] > macs[4] == macs[5]
    assert costs[1].parameters < costs[0].parameters - 160 * 32
    held = model.program.state_dict
    sparse = [name for name in held if name.startswith("blocks") and name.endswith("widen.weight")]
    assert len(sparse) == 4 and all(is_2_4(held[name]) or held[name].shape[1] % 4 for name in sparse)
    check_like_any_other(model, {"input_ids": ids[:3], "attention_mask": mask[:3]}, tmp_path)
    for lowered in (export_onnx(model), export_litert(model)):
        assert {item.layer.name for item in lowered.placed} == {layer.name for layer in layers(model)}
