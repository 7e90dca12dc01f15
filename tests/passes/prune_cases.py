"""The models whose groups are proved, and for those with a normalisation the smaller module to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prune_convolution_models import Dense, DenseBlock, Grouped, Groups, Halves, Residual, ResNet18, UNet
from prune_kit import sizes_choice
from prune_token_models import (
    Decoder,
    Fused,
    GroupedQueries,
    Patches,
    Series,
    Tied,
    VitTiny,
    bert,
    distilbert,
    example,
)

from compress import zoo

TASKS = ["default:binary", "delinquency:3", "growth:regression"]
IMAGE, SMALL_IMAGE, SEQUENCE = {"image": (3, 16, 16)}, {"image": (3, 32, 32)}, {"values": (5, 5)}
TEXT = {"input_ids": (8,), "attention_mask": (8,)}

# Name -> (what makes the module, its inputs without the batch). These are small, or what the project itself ships.
CASES: dict[str, tuple[Callable[..., Any], dict[str, Sequence[int]]]] = {
    "residual": (Residual, IMAGE),
    "dense": (Dense, IMAGE),
    "dense_block": (DenseBlock, IMAGE),
    "u_net": (UNet, IMAGE),
    "grouped": (Grouped, IMAGE),
    "halves": (Halves, IMAGE),
    "groups": (Groups, {"image": (3, 8, 8)}),
    "fused-view": (lambda: Fused(True), SEQUENCE),
    "fused-chunk": (lambda: Fused(False), SEQUENCE),
    "grouped-queries": (lambda: GroupedQueries(True), {"values": (5, 16)}),
    "repeated-heads": (lambda: GroupedQueries(False), {"values": (5, 16)}),
    "decoder": (Decoder, {"ids": (6,)}),
    "patches": (Patches, IMAGE),
    "tied": (Tied, {"ids": (4,)}),
    "series": (Series, {"values": (6, 5)}),
    "mobilenet_v2": (lambda: zoo.mobilenet_v2(classes=4), SMALL_IMAGE),
    "mobilenet_v3_small": (lambda: zoo.mobilenet_v3_small(classes=4), SMALL_IMAGE),
    "mobilenet_v3_large": (lambda: zoo.mobilenet_v3_large(classes=4), SMALL_IMAGE),
    "efficientnet_b0": (lambda: zoo.efficientnet_b0(classes=4), SMALL_IMAGE),
    "ft_transformer": (
        partial(zoo.ft_transformer, numeric=6, categories=[3, 5]),
        {"numeric": (6,), "categories": (2,)},
    ),
    "transaction_transformer": (
        partial(zoo.transaction_transformer, features_per_step=6, steps=12),
        {"transactions": (12, 6)},
    ),
    "compact_bert": (partial(zoo.compact_bert, vocabulary=50), TEXT),
    **{
        f"{name}-{sharing}": (
            partial(getattr(zoo, name), features=6, tasks=TASKS, sharing=sharing),
            {"features": (6,)},
        )
        for name in ("multitask_mlp", "multitask_transformer")
        for sharing in ("hard", "soft")
    },
}

# Models of others, and the examples'.
MORE: dict[str, tuple[Callable[..., Any], dict[str, Sequence[int]]]] = {
    "resnet18": (lambda: ResNet18(classes=4), SMALL_IMAGE),
    "vit_tiny": (partial(VitTiny, side=32, blocks=4, classes=4), SMALL_IMAGE),
    "bert": (bert, TEXT),
    "minilm": (partial(bert, width=384, heads=12, hidden=1536, layers=6), TEXT),
    "distilbert": (distilbert, TEXT),
    "credit_default": (partial(example, "credit_default"), {"features": (23,)}),
    "credit_multitask-hard": (partial(example, "credit_multitask", sharing="hard"), {"features": (20,)}),
    "credit_multitask-soft": (partial(example, "credit_multitask", sharing="soft"), {"features": (20,)}),
}
EVERY = CASES | MORE


@dataclass(frozen=True)
class Narrow:
    """A smaller module that is built by its own constructor, and which positions of a weight it holds.

    Attributes:
        arguments: Of the constructor.
        rows: Pattern on `parameter[dimension]` -> positions; what no pattern matches follows from the two sizes.
    """

    arguments: Mapping[str, Any]
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)


def blocks(kept: Sequence[int], size: int, offset: int = 0) -> list[int]:
    """The positions of whole heads of one size."""
    return [offset + head * size + place for head in kept for place in range(size)]


def _heads(pattern: str, kept: Sequence[int], size: int) -> dict[str, list[int]]:
    return {pattern: blocks(kept, size)}


OWN = r"\.(q|k|v)\.(weight|bias)\[0\]|\.out\.weight\[1\]"
ZOO = Narrow({"width": 48, "heads": 3}, _heads(OWN, (0, 2, 3), 16))

NARROW = {
    # The second and the fourth channel of each of three groups of four.
    "groups": Narrow({"width": 6}, {r"^a\..*\[0\]|^norm|^b\.weight\[1\]": [1, 3, 5, 7, 9, 11]}),
    "patches": Narrow(
        {"width": 12, "heads": 3, "hidden": 20},
        {
            r"in_proj_(weight|bias)\[0\]": [place for part in range(3) for place in blocks((0, 1, 3), 4, 16 * part)],
            r"out_proj\.weight\[1\]": blocks((0, 1, 3), 4),
        },
    ),
    "vit_tiny": Narrow(
        {"width": 128, "heads": 2, "hidden": 512},
        {
            r"qkv\.(weight|bias)\[0\]": [place for part in range(3) for place in blocks((0, 2), 64, 192 * part)],
            r"proj\.weight\[1\]": blocks((0, 2), 64),
        },
    ),
    "decoder": Narrow(
        {"width": 12, "hidden": 14, "heads": 2, "shared": 1},
        {r"\.q\.weight\[0\]|\.o\.weight\[1\]": blocks((2, 3), 4), r"\.(k|v)\.weight\[0\]": blocks((1,), 4)},
    ),
    "ft_transformer": ZOO,
    "transaction_transformer": ZOO,
    "multitask_transformer-hard": ZOO,
    "multitask_transformer-soft": ZOO,
    "compact_bert": Narrow({"width": 192, "heads": 3, "feed_forward": 640}, _heads(OWN, (0, 1, 3), 64)),
    "credit_default": Narrow(
        {"width": 96, "heads": 3},
        # Three numbers stand behind the embedding that a month is made of.
        _heads(OWN, (1, 2, 3), 32) | {r"^month\.weight\[1\]": [*sizes_choice(128, 96), 128, 129, 130]},
    ),
    "bert": Narrow(
        {"width": 24, "heads": 3, "hidden": 40},
        _heads(r"self\.\w+\.(weight|bias)\[0\]|attention\.output\.dense\.weight\[1\]", (0, 2, 3), 8),
    ),
    "minilm": Narrow(
        {"width": 256, "heads": 8, "hidden": 1024},
        _heads(r"self\.\w+\.(weight|bias)\[0\]|attention\.output\.dense\.weight\[1\]", (0, 1, 3, 4, 6, 7, 9, 11), 32),
    ),
    "distilbert": Narrow(
        {"width": 24, "heads": 3, "hidden": 40},
        _heads(r"(q|k|v)_lin\.(weight|bias)\[0\]|out_lin\.weight\[1\]", (0, 1, 2), 8),
    ),
}
