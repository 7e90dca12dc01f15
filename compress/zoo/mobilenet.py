"""MobileNetV2 and V3; parameters are named as in the well-known ImageNet checkpoints.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, arXiv:1801.04381.
Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv:1905.02244.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from compress.zoo.convolution import ImageModel, SqueezeExcitation, check_image_arguments, conv_norm, divisible


class Stage(NamedTuple):
    """Blocks of one width in MobileNetV2: table 2 of the paper. The first of them has the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int


class Bottleneck(NamedTuple):
    """One block of MobileNetV3: a row of tables 1 and 2 of the paper."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    hardswish: bool
    stride: int


V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
V3_LARGE = (
    Bottleneck(3, 16, 16, False, False, 1),
    Bottleneck(3, 64, 24, False, False, 2),
    Bottleneck(3, 72, 24, False, False, 1),
    Bottleneck(5, 72, 40, True, False, 2),
    Bottleneck(5, 120, 40, True, False, 1),
    Bottleneck(5, 120, 40, True, False, 1),
    Bottleneck(3, 240, 80, False, True, 2),
    Bottleneck(3, 200, 80, False, True, 1),
    Bottleneck(3, 184, 80, False, True, 1),
    Bottleneck(3, 184, 80, False, True, 1),
    Bottleneck(3, 480, 112, True, True, 1),
    Bottleneck(3, 672, 112, True, True, 1),
    Bottleneck(5, 672, 160, True, True, 2),
    Bottleneck(5, 960, 160, True, True, 1),
    Bottleneck(5, 960, 160, True, True, 1),
)
V3_SMALL = (
    Bottleneck(3, 16, 16, True, False, 2),
    Bottleneck(3, 72, 24, False, False, 2),
    Bottleneck(3, 88, 24, False, False, 1),
    Bottleneck(5, 96, 40, True, True, 2),
    Bottleneck(5, 240, 40, True, True, 1),
    Bottleneck(5, 240, 40, True, True, 1),
    Bottleneck(5, 120, 48, True, True, 1),
    Bottleneck(5, 144, 48, True, True, 1),
    Bottleneck(5, 288, 96, True, True, 2),
    Bottleneck(5, 576, 96, True, True, 1),
    Bottleneck(5, 576, 96, True, True, 1),
)


class InvertedResidualV2(nn.Module):
    """Widens, filters each channel, narrows without an activation; adds its input where the shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.adds = stride == 1 and channels_in == channels_out
        hidden = channels_in * expansion
        widen = [conv_norm(channels_in, hidden, 1, nn.BatchNorm2d, nn.ReLU6)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *widen,
            conv_norm(hidden, hidden, 3, nn.BatchNorm2d, nn.ReLU6, stride, depthwise=True),
            *conv_norm(hidden, channels_out, 1, nn.BatchNorm2d, None),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `maps` `[batch, channels_in, rows, columns]` to `[batch, channels_out, …]`."""
        filtered: Tensor = self.conv(maps)
        return maps + filtered if self.adds else filtered


class InvertedResidualV3(nn.Module):
    """The same with a choice of kernel and activation, and with squeeze-and-excitation before it narrows."""

    def __init__(self, channels_in: int, row: Bottleneck) -> None:
        super().__init__()
        self.adds = row.stride == 1 and channels_in == row.channels
        activation = nn.Hardswish if row.hardswish else nn.ReLU
        widen = [conv_norm(channels_in, row.expanded, 1, _V3_NORM, activation)] if row.expanded != channels_in else []
        filter_ = conv_norm(row.expanded, row.expanded, row.kernel, _V3_NORM, activation, row.stride, depthwise=True)
        squeeze = SqueezeExcitation(row.expanded, divisible(row.expanded // 4), nn.ReLU(), nn.Hardsigmoid())
        self.block = nn.Sequential(
            *widen,
            filter_,
            *([squeeze] if row.squeeze else []),
            conv_norm(row.expanded, row.channels, 1, _V3_NORM, None),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `maps` `[batch, channels_in, rows, columns]` to `[batch, channels_out, …]`."""
        filtered: Tensor = self.block(maps)
        return maps + filtered if self.adds else filtered


def mobilenet_v2(classes: int = 1000, width: float = 1.0, dropout: float = 0.2, normalise: bool = False) -> ImageModel:
    """Builds MobileNetV2, untrained; 3,504,872 parameters by default.

    Args:
        classes: Classes to tell apart.
        width: Factor on the number of channels.
        dropout: Share of features dropped before the classifier in training.
        normalise: Whether the graph itself takes pixels 0..255 and scales them as ImageNet's; without it the caller
            does.

    Raises:
        ModelError: If an argument is out of its range.
    """
    check_image_arguments(classes, width, dropout)
    return build_v2(V2, classes, width, dropout, normalise)


def mobilenet_v3_large(
    classes: int = 1000, width: float = 1.0, dropout: float = 0.2, normalise: bool = False
) -> ImageModel:
    """Builds MobileNetV3 large, untrained; 5,483,032 parameters by default. Arguments as `mobilenet_v2`."""
    check_image_arguments(classes, width, dropout)
    return build_v3(V3_LARGE, 1280, classes, width, dropout, normalise)


def mobilenet_v3_small(
    classes: int = 1000, width: float = 1.0, dropout: float = 0.2, normalise: bool = False
) -> ImageModel:
    """Builds MobileNetV3 small, untrained; 2,542,856 parameters by default. Arguments as `mobilenet_v2`."""
    check_image_arguments(classes, width, dropout)
    return build_v3(V3_SMALL, 1024, classes, width, dropout, normalise)


def build_v2(stages: Sequence[Stage], classes: int, width: float, dropout: float, normalise: bool) -> ImageModel:
    """Builds a MobileNetV2 of any stages; the last layer keeps its 1280 channels when `width` is below 1."""
    channels = divisible(32 * width)
    features: list[nn.Module] = [conv_norm(3, channels, 3, nn.BatchNorm2d, nn.ReLU6, stride=2)]
    for stage in stages:
        wide = divisible(stage.channels * width)
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            features.append(InvertedResidualV2(channels, wide, stride, stage.expansion))
            channels = wide
    last = divisible(1280 * max(1.0, width))
    features.append(conv_norm(channels, last, 1, nn.BatchNorm2d, nn.ReLU6))
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, classes))
    return ImageModel(nn.Sequential(*features), classifier, normalise)


def build_v3(
    rows: Sequence[Bottleneck], last: int, classes: int, width: float, dropout: float, normalise: bool
) -> ImageModel:
    """Builds a MobileNetV3 of any blocks; `last` is the width of the hidden layer of the classifier."""
    channels = divisible(16 * width)
    features: list[nn.Module] = [conv_norm(3, channels, 3, _V3_NORM, nn.Hardswish, stride=2)]
    for row in rows:
        scaled = row._replace(expanded=divisible(row.expanded * width), channels=divisible(row.channels * width))
        features.append(InvertedResidualV3(channels, scaled))
        channels = scaled.channels
    features.append(conv_norm(channels, 6 * channels, 1, _V3_NORM, nn.Hardswish))
    hidden = divisible(last * width)
    classifier = nn.Sequential(
        nn.Linear(6 * channels, hidden), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(hidden, classes)
    )
    return ImageModel(nn.Sequential(*features), classifier, normalise)


_V3_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
