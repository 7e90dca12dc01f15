"""Groups of Hugging Face models, whose graphs reshape by computed sizes and slice their own tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prune_kit import cut_answers, difference, exported, gone_of, rest, rows, zeroed_answers

from compress.passes.prune.groups import analyse

transformers = pytest.importorskip("transformers")

INPUTS = {"input_ids": (8,), "attention_mask": (8,)}
SHARED = {"vocab_size": 100, "num_labels": 3}


class Named(torch.nn.Module):
    """Takes tensors by name and gives its scores by name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask):
        return {"logits": self.inner(input_ids=input_ids, attention_mask=attention_mask).logits}


def bert():
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **SHARED
    )
    return transformers.BertForSequenceClassification(config)


def distilbert():
    config = transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **SHARED)
    return transformers.DistilBertForSequenceClassification(config)


@pytest.mark.parametrize("make", [bert, distilbert])
@pytest.mark.filterwarnings("ignore")
def test_every_group_is_proved(make):
    model = exported(Named(make()), **INPUTS)
    analysis = analyse(model)
    assert not analysis.found.unknown
    given = rows(model)
    plain = [group for group in analysis.prunable if not group.mixed]
    mixed = [group for group in analysis.prunable if group.mixed]
    # The residual stream is the only one across which something is computed.
    assert [group.size for group in mixed] == [32]
    for number, group in enumerate(plain):
        gone = gone_of(group, number)
        found = cut_answers(model, {group.name: rest(group, gone)}, given)
        assert difference(found, zeroed_answers(model, {group.name: gone}, given)) < 1e-5, group.name
    heads = [group for group in plain if group.size == 4]
    assert len(heads) == 2 and all(len(group.members) == 7 for group in heads)
    narrow = cut_answers(model, {group.name: np.arange(0, group.size, 2) for group in analysis.prunable}, given)
    assert all(torch.isfinite(values).all() for values in narrow)
