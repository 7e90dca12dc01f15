from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import compress.zoo
from compress.zoo.convolution import IMAGENET_MEAN, IMAGENET_STD, divisible
from compress.zoo.efficientnet import StochasticDepth

# What the papers' models have with 1000 classes, and names that their ImageNet checkpoints hold.
KNOWN = {
    "mobilenet_v2": (
        3_504_872,
        314,
        {
            "features.0.0.weight": (32, 3, 3, 3),
            "features.0.1.running_mean": (32,),
            "features.1.conv.0.0.weight": (32, 1, 3, 3),
            "features.1.conv.1.weight": (16, 32, 1, 1),
            "features.2.conv.1.0.weight": (96, 1, 3, 3),
            "features.17.conv.3.weight": (320,),
            "features.18.0.weight": (1280, 320, 1, 1),
            "classifier.1.weight": (1000, 1280),
        },
    ),
    "mobilenet_v3_small": (
        2_542_856,
        244,
        {
            "features.0.0.weight": (16, 3, 3, 3),
            "features.1.block.0.0.weight": (16, 1, 3, 3),
            "features.1.block.1.fc1.weight": (8, 16, 1, 1),
            "features.1.block.2.0.weight": (16, 16, 1, 1),
            "features.11.block.2.fc2.bias": (576,),
            "features.12.1.running_var": (576,),
            "classifier.0.weight": (1024, 576),
            "classifier.3.bias": (1000,),
        },
    ),
    "mobilenet_v3_large": (
        5_483_032,
        312,
        {
            "features.1.block.1.0.weight": (16, 16, 1, 1),
            "features.4.block.2.fc1.weight": (24, 72, 1, 1),
            "features.15.block.3.1.num_batches_tracked": (),
            "features.16.0.weight": (960, 160, 1, 1),
            "classifier.0.weight": (1280, 960),
            "classifier.3.weight": (1000, 1280),
        },
    ),
    "efficientnet_b0": (
        5_288_548,
        360,
        {
            "features.0.0.weight": (32, 3, 3, 3),
            "features.1.0.block.1.fc1.weight": (8, 32, 1, 1),
            "features.2.0.block.2.fc1.weight": (4, 96, 1, 1),
            "features.3.1.block.1.0.weight": (240, 1, 5, 5),
            "features.7.0.block.3.1.running_mean": (320,),
            "features.8.0.weight": (1280, 320, 1, 1),
            "classifier.1.weight": (1000, 1280),
        },
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_of_the_well_known_checkpoints(name: str) -> None:
    parameters, tensors, shapes = KNOWN[name]
    with torch.device("meta"):
        model = getattr(compress.zoo, name)()
    held = model.state_dict()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(held) == tensors
    assert {key: tuple(held[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize("name", KNOWN)
def test_scores_are_one_row_an_image_of_any_size(name: str) -> None:
    model = getattr(compress.zoo, name)(classes=7, width=0.25).eval()
    with torch.no_grad():
        for height, width in ((64, 64), (96, 65)):
            assert model(torch.rand(2, 3, height, width))["scores"].shape == (2, 7)


@pytest.mark.parametrize("name", KNOWN)
def test_the_graph_can_scale_pixels_itself(name: str) -> None:
    factory: Callable[..., Any] = getattr(compress.zoo, name)
    plain = factory(classes=5, width=0.25).eval()
    raw = factory(classes=5, width=0.25, normalise=True).eval()
    assert raw.state_dict().keys() == plain.state_dict().keys()
    raw.load_state_dict(plain.state_dict())
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        torch.testing.assert_close(raw(pixels), plain((pixels / 255 - mean) / std))


def test_stochastic_depth_drops_whole_rows_in_training_alone() -> None:
    torch.manual_seed(0)
    layer, ones = StochasticDepth(0.25), torch.ones(4000, 2, 3)
    assert layer.eval()(ones) is ones
    dropped = layer.train()(ones)
    rows = dropped.flatten(1)
    assert ((rows == 0).all(dim=1) | (rows == 1 / 0.75).all(dim=1)).all()
    assert abs(float(dropped.mean()) - 1) < 0.05


def test_stochastic_depth_grows_with_the_depth() -> None:
    with torch.device("meta"):
        model = compress.zoo.efficientnet_b0(stochastic_depth=0.2)
    found = [module.probability for module in model.modules() if isinstance(module, StochasticDepth)]
    assert found == pytest.approx([0.2 * index / 16 for index in range(16)])


@pytest.mark.parametrize(("channels", "expected"), [(8, 8), (11, 16), (12, 16), (19, 24), (33.6, 32), (3, 8), (96, 96)])
def test_channels_are_multiples_of_eight_and_never_a_tenth_too_few(channels: float, expected: int) -> None:
    assert divisible(channels) == expected
