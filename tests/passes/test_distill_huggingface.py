"""The inside of Hugging Face models: their blocks, attentions and masks are found, also where layers were left out."""

from __future__ import annotations

import numpy as np
import pytest
from prune_cases import TEXT
from prune_kit import exported
from prune_token_models import bert, distilbert

from compress.passes.base import Context, run_pass
from compress.passes.distill.options import DistillOptions
from compress.passes.distill.pairing import pair
from compress.passes.distill.points import attentions, hidden_states

pytest.importorskip("transformers")


@pytest.mark.parametrize("make", [bert, distilbert])
@pytest.mark.filterwarnings("ignore")
def test_blocks_and_masks_are_found_and_a_student_without_a_layer_is_paired(make):
    teacher = exported(make(), **TEXT)
    states = hidden_states(teacher)
    assert [point.shape for point in states] == [(8, 32), (8, 32)]
    assert all("layer_norm" in point.node for point in states)
    found = attentions(teacher)
    assert [(item.heads, item.tokens, item.width) for item in found] == [(4, 8, 8), (4, 8, 8)]
    assert all(item.mask for item in found)
    student = run_pass("drop_layers", teacher, None, Context(options={"every": 2})).model
    pairing = pair(student, teacher, DistillOptions(hidden=1.0, relations=1.0), "x")
    (only,) = pairing.pairs
    assert only.teacher == states[-1] and pairing.relation is not None
    rows = {"input_ids": np.ones((3, 8), np.int64), "attention_mask": np.ones((3, 8), np.int64)}
    assert np.isfinite(student.run(rows)["logits"]).all()
