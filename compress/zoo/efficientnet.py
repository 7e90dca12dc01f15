"""EfficientNet-B0; parameters are named as in the well-known ImageNet checkpoints.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, arXiv:1905.11946.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compress.zoo.arguments import fraction
from compress.zoo.convolution import ImageModel, SqueezeExcitation, check_image_arguments, conv_norm, divisible


class Stage(NamedTuple):
    """Blocks of one width: a row of table 1 of the paper. The first of them has the stride."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    repeats: int


B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class StochasticDepth(nn.Module):
    """Drops a whole branch, row by row, in training alone (Huang et al. 2016, arXiv:1603.09382).

    Args:
        probability: Of a row being dropped; the others are scaled up by what is missing.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """Maps `branch` `[batch, …]` to the same shape."""
        if not self.training or self.probability == 0:
            return branch
        keep = 1 - self.probability
        rows = torch.rand((branch.shape[0],) + (1,) * (branch.dim() - 1), device=branch.device) < keep
        return branch * rows.to(branch.dtype) / keep


class MBConv(nn.Module):
    """Widens, filters each channel, weighs them, narrows; adds its input where the shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, stage: Stage, drop: float) -> None:
        super().__init__()
        self.adds = stride == 1 and channels_in == channels_out
        hidden = channels_in * stage.expansion
        widen = [conv_norm(channels_in, hidden, 1, nn.BatchNorm2d, nn.SiLU)] if stage.expansion != 1 else []
        self.block = nn.Sequential(
            *widen,
            conv_norm(hidden, hidden, stage.kernel, nn.BatchNorm2d, nn.SiLU, stride, depthwise=True),
            SqueezeExcitation(hidden, max(1, channels_in // 4), nn.SiLU(), nn.Sigmoid()),
            conv_norm(hidden, channels_out, 1, nn.BatchNorm2d, None),
        )
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `maps` `[batch, channels_in, rows, columns]` to `[batch, channels_out, …]`."""
        filtered: Tensor = self.block(maps)
        return maps + self.stochastic_depth(filtered) if self.adds else filtered


def efficientnet_b0(
    classes: int = 1000,
    width: float = 1.0,
    dropout: float = 0.2,
    stochastic_depth: float = 0.2,
    normalise: bool = False,
) -> ImageModel:
    """Builds EfficientNet-B0, untrained; 5,288,548 parameters by default.

    Args:
        classes: Classes to tell apart.
        width: Factor on the number of channels.
        dropout: Share of features dropped before the classifier in training.
        stochastic_depth: Probability of dropping the last block in training; it grows linearly from 0 at the first.
        normalise: Whether the graph itself takes pixels 0..255 and scales them as ImageNet's; without it the caller
            does.

    Raises:
        ModelError: If an argument is out of its range.
    """
    check_image_arguments(classes, width, dropout)
    fraction(stochastic_depth=stochastic_depth)
    return build(B0, classes, width, dropout, stochastic_depth, normalise)


def build(
    stages: Sequence[Stage], classes: int, width: float, dropout: float, stochastic_depth: float, normalise: bool
) -> ImageModel:
    """Builds an EfficientNet of any stages."""
    channels = divisible(32 * width)
    features: list[nn.Module] = [conv_norm(3, channels, 3, nn.BatchNorm2d, nn.SiLU, stride=2)]
    total, built = sum(stage.repeats for stage in stages), 0
    for stage in stages:
        wide = divisible(stage.channels * width)
        blocks = []
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            blocks.append(MBConv(channels, wide, stride, stage, stochastic_depth * built / total))
            channels, built = wide, built + 1
        features.append(nn.Sequential(*blocks))
    features.append(conv_norm(channels, 4 * channels, 1, nn.BatchNorm2d, nn.SiLU))
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * channels, classes))
    return ImageModel(nn.Sequential(*features), classifier, normalise)
