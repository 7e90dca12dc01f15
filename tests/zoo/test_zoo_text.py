from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.zoo.text import CompactBert, compact_bert
from compress.zoo.transformer import Block, padding_mask

IDS = torch.tensor([[5, 9, 3, 0, 0], [7, 1, 2, 8, 4]])
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def tiny(**arguments: object) -> CompactBert:
    torch.manual_seed(0)
    sizes = {"vocabulary": 11, "width": 8, "layers": 2, "heads": 2, "feed_forward": 16, "positions": 6, "classes": 3}
    return compact_bert(**{**sizes, **arguments}).eval()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_changes_no_answer(pooling: str) -> None:
    model = tiny(pooling=pooling)
    scores = model(IDS, MASK)["scores"]
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[:1], model(IDS[:1, :3], MASK[:1, :3])["scores"])
    other = IDS.clone()
    other[0, 3:] = 6
    torch.testing.assert_close(model(other, MASK)["scores"], scores)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_text_without_a_token_gives_numbers(pooling: str) -> None:
    assert torch.isfinite(tiny(pooling=pooling)(IDS, torch.zeros_like(MASK))["scores"]).all()


def test_pooling_chooses_what_the_head_reads() -> None:
    mean, cls = tiny(pooling="mean"), tiny(pooling="cls")
    assert not torch.allclose(mean(IDS, MASK)["scores"], cls(IDS, MASK)["scores"], atol=1e-6)


def test_token_types_are_optional_and_default_to_the_first() -> None:
    model = tiny(token_types=2)
    zeros = torch.zeros_like(IDS)
    torch.testing.assert_close(model(IDS, MASK), model(IDS, MASK, zeros))
    assert not torch.allclose(model(IDS, MASK)["scores"], model(IDS, MASK, zeros + 1)["scores"], atol=1e-6)
    with pytest.raises(ModelError, match="token types are fed"):
        tiny()(IDS, MASK, zeros)


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ModelError, match="5 tokens, the model 4 positions"):
        tiny(positions=4)(IDS, MASK)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_block_is_that_of_torch(pre_norm: bool) -> None:
    torch.manual_seed(0)
    ours = Block(8, 2, 16, 0.0, pre_norm).eval()
    theirs = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=pre_norm).eval()
    attention = ours.attention
    with torch.no_grad():
        for part in ("weight", "bias"):
            stacked = torch.cat([getattr(layer, part) for layer in (attention.q, attention.k, attention.v)])
            getattr(theirs.self_attn, f"in_proj_{part}").copy_(stacked)
    theirs.self_attn.out_proj.load_state_dict(attention.out.state_dict())
    theirs.linear1.load_state_dict(ours.up.state_dict())
    theirs.linear2.load_state_dict(ours.down.state_dict())
    tokens = torch.randn(2, 5, 8)
    expected = theirs(tokens, src_key_padding_mask=MASK == 0)
    got = ours(tokens, padding_mask(MASK.float()))
    torch.testing.assert_close(got[MASK == 1], expected[MASK == 1], atol=1e-5, rtol=1e-5)
