from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import compress.zoo
from compress.errors import CompressError, ModelError
from compress.model.factory import build_module
from compress.recipe import ModelConfig
from compress.zoo import ZOO


def test_importing_the_zoo_imports_no_torch() -> None:
    program = (
        "import sys, compress.zoo; compress.zoo.ZOO.names(); assert 'torch' not in sys.modules; "
        "compress.zoo.mobilenet_v2; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(compress.zoo.__file__).parents[2])


def test_every_member_is_listed_under_its_name_and_reached_by_the_short_form() -> None:
    assert len(ZOO.names()) == 10
    for name in ZOO.names():
        factory = ZOO.load(name)
        assert factory.__name__ == name
        assert getattr(compress.zoo, name) is factory
        assert name in dir(compress.zoo)


def test_an_unknown_member_names_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"mobilenet_v4.*mobilenet_v2"):
        _ = compress.zoo.mobilenet_v4
    with pytest.raises(CompressError, match="did you mean 'mobilenet_v2'"):
        ZOO.load("mobilenet_v")


@pytest.mark.parametrize("source", ["compress.zoo:ft_transformer", "compress.zoo.tabular:ft_transformer"])
def test_a_recipe_names_a_member_and_its_arguments(source: str, tmp_path: Path) -> None:
    config = ModelConfig(source=source, arguments={"numeric": 3, "categories": [2, 4], "width": 8, "heads": 2})
    module = build_module(config, tmp_path)
    assert not module.training
    scores = module(torch.zeros(5, 3), torch.zeros(5, 2, dtype=torch.int64))["scores"]
    assert scores.shape == (5, 1)


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("mobilenet_v2", {"classes": 0}, "classes must be at least 1"),
        ("mobilenet_v3_small", {"width": 0.0}, "width must be at least"),
        ("efficientnet_b0", {"stochastic_depth": 1.0}, "stochastic_depth must be in"),
        ("ft_transformer", {"numeric": 0}, "numeric must be at least 1"),
        ("ft_transformer", {"numeric": 2, "categories": [3, 0]}, r"categories\[1\] must be at least 1"),
        ("ft_transformer", {"numeric": 2, "width": 10, "heads": 4}, "heads must divide"),
        ("transaction_transformer", {"features_per_step": 2, "steps": 0}, "steps must be at least 1"),
        ("lstm_baseline", {"features_per_step": 2, "steps": 3, "dropout": -0.1}, "dropout must be in"),
        ("compact_bert", {"pooling": "max"}, "pooling must be one of mean, cls; got 'max'"),
        ("multitask_mlp", {"features": 2, "tasks": ["default"]}, "'default' has no kind"),
        ("multitask_mlp", {"features": 2, "tasks": ["a:binary", "a:3"]}, "'a' is there twice"),
        ("multitask_mlp", {"features": 2, "tasks": ["a:1"]}, "of the kind 1"),
        ("multitask_mlp", {"features": 2, "tasks": ["a:ordinal"]}, "of the kind 'ordinal'"),
        ("multitask_mlp", {"features": 2, "tasks": ["keys:binary"]}, "'keys' cannot be the name"),
        ("multitask_mlp", {"features": 2, "tasks": ["features:binary"]}, "'features' cannot be the name"),
        ("multitask_mlp", {"features": 2, "tasks": []}, "there is no task"),
        ("multitask_mlp", {"features": 2, "tasks": ["a:binary"], "sharing": "both"}, "one of hard, soft"),
        ("multitask_mlp", {"features": 2, "tasks": ["a:binary"], "hidden": []}, "hidden must be at least 1"),
        ("multitask_transformer", {"features": 0, "tasks": ["a:binary"]}, "features must be at least 1"),
    ],
)
def test_an_impossible_argument_is_named(
    source: str, arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        build_module(ModelConfig(source=f"compress.zoo:{source}", arguments=arguments), tmp_path)
