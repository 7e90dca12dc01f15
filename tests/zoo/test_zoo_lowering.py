"""Every member exports, lowers to every runtime and quantizes: tiny ones here, full-size ones marked slow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from compress import zoo
from compress.calibrate import calibrate
from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.model.layers import MULTIPLYING, layers
from compress.passes.base import Context, run_pass
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.base import RUNTIMES, Lowered
from compress.target import Target
from compress.worker.session import open_session
from compress.zoo import efficientnet, mobilenet

Array = NDArray[np.generic]
Random = np.random.Generator
TASKS = ["default:binary", "delinquency:3", "growth:regression"]
ROWS = 24
# The others run what these write (tflite_runtime, tensorrt) or the graph itself (torch).
LOWERINGS = ("onnxruntime", "litert")
# LiteRT's converter multiplies the gain of the normalised embeddings into these, past a dropout that does nothing.
BEHIND_EMBEDDINGS = frozenset({"blocks.0.attention.q", "blocks.0.attention.k", "blocks.0.attention.v"})


@dataclass(frozen=True)
class Case:
    """A member of some size, how to make inputs for it, and the layers that LiteRT's converter may hide."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[Random], dict[str, Array]]
    may_hide: frozenset[str] = frozenset()


def images(size: int) -> Callable[[Random], dict[str, Array]]:
    def make(random: Random) -> dict[str, Array]:
        patches = random.normal(size=(ROWS, 3, size // 8, size // 8)).repeat(8, axis=2).repeat(8, axis=3)
        return {"image": (patches + 0.3 * random.normal(size=patches.shape)).astype(np.float32)}

    return make


def table(name: str, columns: int, categories: tuple[int, ...] = ()) -> Callable[[Random], dict[str, Array]]:
    def make(random: Random) -> dict[str, Array]:
        values = random.normal(size=(ROWS, columns)).astype(np.float32)
        values[random.random(values.shape) < 0.1] = np.nan
        codes = [random.integers(-1, count + 1, ROWS) for count in categories]
        return {name: values, **({"categories": np.stack(codes, axis=1)} if codes else {})}

    return make


def series(steps: int, features: int) -> Callable[[Random], dict[str, Array]]:
    def make(random: Random) -> dict[str, Array]:
        values = random.normal(size=(ROWS, steps, features)).astype(np.float32)
        values[random.random(values.shape) < 0.05] = np.nan
        values[np.arange(steps) < random.integers(0, steps, ROWS)[:, None]] = np.nan
        return {"transactions": values}

    return make


def texts(tokens: int, vocabulary: int, types: bool = False) -> Callable[[Random], dict[str, Array]]:
    def make(random: Random) -> dict[str, Array]:
        lengths = random.integers(2, tokens + 1, ROWS)[:, None]
        mask = (np.arange(tokens) < lengths).astype(np.int64)
        second = (np.arange(tokens) >= lengths // 2).astype(np.int64) * mask
        ids = random.integers(0, vocabulary, (ROWS, tokens)) * mask
        return {"input_ids": ids, "attention_mask": mask, **({"token_type_ids": second} if types else {})}

    return make


def tiny_v2() -> nn.Module:
    return mobilenet.build_v2((mobilenet.Stage(2, 8, 1, 1),), classes=4, width=0.25, dropout=0.2, normalise=False)


def tiny_v3() -> nn.Module:
    rows = (mobilenet.Bottleneck(5, 16, 8, squeeze=True, hardswish=True, stride=1),)
    return mobilenet.build_v3(rows, last=16, classes=4, width=0.5, dropout=0.2, normalise=True)


def tiny_efficientnet() -> nn.Module:
    stages = (efficientnet.Stage(2, 5, 1, 8, 1),)
    return efficientnet.build(stages, 4, width=0.25, dropout=0.2, stochastic_depth=0.2, normalise=False)


def scaled_pixels(random: Random) -> dict[str, Array]:
    return {"image": np.clip(images(32)(random)["image"] * 50 + 128, 0, 255).astype(np.float32)}


def tiny(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    return functools.partial(getattr(zoo, name), **arguments)


BLOCK: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2}
TINY = [
    Case("mobilenet_v2", tiny_v2, images(32)),
    Case("mobilenet_v3", tiny_v3, scaled_pixels),
    Case("efficientnet", tiny_efficientnet, images(32)),
    Case("ft_transformer", tiny("ft_transformer", numeric=4, categories=[3, 5], **BLOCK), table("numeric", 4, (3, 5))),
    Case(
        "transaction_transformer", tiny("transaction_transformer", features_per_step=3, steps=5, **BLOCK), series(5, 3)
    ),
    Case("lstm_baseline", tiny("lstm_baseline", features_per_step=3, steps=3, hidden=16), series(3, 3)),
    Case(
        "compact_bert",
        tiny("compact_bert", vocabulary=30, feed_forward=32, positions=10, token_types=2, classes=3, **BLOCK),
        texts(8, 30, types=True),
        BEHIND_EMBEDDINGS,
    ),
    Case("multitask_mlp", tiny("multitask_mlp", features=4, tasks=TASKS, sharing="soft"), table("features", 4)),
]
FULL = [
    *(
        Case(name, tiny(name), images(224))
        for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")
    ),
    Case("ft_transformer", tiny("ft_transformer", numeric=12, categories=[3, 5]), table("numeric", 12, (3, 5))),
    Case("ft_transformer, numbers alone", tiny("ft_transformer", numeric=12), table("numeric", 12)),
    Case("transaction_transformer", tiny("transaction_transformer", features_per_step=6, steps=24), series(24, 6)),
    Case("lstm_baseline", tiny("lstm_baseline", features_per_step=6, steps=24, layers=2), series(24, 6)),
    Case("compact_bert", tiny("compact_bert"), texts(64, 30522), BEHIND_EMBEDDINGS),
    Case(
        "compact_bert, cls",
        tiny("compact_bert", token_types=2, pooling="cls"),
        texts(64, 30522, types=True),
        BEHIND_EMBEDDINGS,
    ),
    *(
        Case(f"{name}, {sharing}", tiny(name, features=12, tasks=TASKS, sharing=sharing), table("features", 12))
        for name in ("multitask_mlp", "multitask_transformer")
        for sharing in ("hard", "soft")
    ),
]


@dataclass(frozen=True)
class Exported:
    """A member as a Model, the rows it is asked, its answers and their calibration."""

    model: Model
    inputs: dict[str, Array]
    answers: dict[str, Array]


@functools.lru_cache(maxsize=len(TINY))
def exported(case: Case) -> Exported:
    torch.manual_seed(0)
    inputs = case.inputs(np.random.default_rng(0))
    module = settled(case.build(), inputs)
    infos = [TensorInfo(name, value.shape[1:], str(value.dtype)) for name, value in inputs.items()]
    model = export_module(module, infos, (), case.name)
    model = run_pass("fold_batch_norm", model, None, Context(), allow_no_change=True).model
    return Exported(model, inputs, model.run(inputs))


def settled(module: nn.Module, inputs: dict[str, Array]) -> nn.Module:
    """Gives an untrained module what training leaves: gains and biases off their start, statistics of its inputs.

    Residual branches count for little, as in a trained network: with random weights at full size each block
    would multiply the noise of the one before it.
    """
    norms = [item for item in module.modules() if isinstance(item, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.01)
        for block in module.modules():
            if getattr(block, "adds", False):
                [item for item in block.modules() if isinstance(item, nn.BatchNorm2d)][-1].weight.mul_(0.1)
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            module.train()(*(torch.from_numpy(value) for value in inputs.values()))
    return module.eval()


def answers(lowered: Lowered, runtime: str, inputs: dict[str, Array], folder: Path) -> dict[str, Array]:
    path = folder / f"model{lowered.suffix}"
    path.write_bytes(lowered.data)
    with open_session(runtime, path, threads=1) as session:
        return session.run(inputs)


def signal_to_noise_db(expected: dict[str, Array], got: dict[str, Array]) -> float:
    """The ratio of the worst output."""
    return min(
        10 * float(np.log10(np.square(expected[name]).sum() / np.square(expected[name] - got[name]).sum()))
        for name in expected
    )


def check(case: Case, runtime: str, folder: Path) -> None:
    given = exported(case)
    engine = RUNTIMES.load(runtime)()
    lowered = engine.lower(given.model)

    got = answers(lowered, runtime, given.inputs, folder)
    assert got.keys() == given.answers.keys()
    for name, expected in given.answers.items():
        assert np.abs(got[name] - expected).max() <= 1e-4 * np.ptp(expected), name

    multiplying = {layer.name for layer in layers(given.model) if layer.operator in MULTIPLYING}
    hidden = {layer.name for layer, _ in lowered.missing}
    assert hidden <= (case.may_hide if runtime == "litert" else frozenset())

    ranges = calibrate(given.model, [given.inputs])
    reached = {}
    for scheme in ("int8-static", "int8-dynamic"):
        target = Target(schema=1, runtime=runtime)
        made = engine.quantize(lowered, BUILTIN_SCHEMES[scheme], ranges, target)
        done = {item.layer for item in made.outcomes if item.precision == "int8"}
        assert done and done <= multiplying - hidden
        if scheme == "int8-static":
            assert done == multiplying - hidden
        reached[scheme] = signal_to_noise_db(given.answers, answers(made, runtime, given.inputs, folder))
    assert max(reached.values()) >= 20, reached


@pytest.mark.parametrize("runtime", LOWERINGS)
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_a_tiny_member_lowers_and_quantizes(case: Case, runtime: str, tmp_path: Path) -> None:
    check(case, runtime, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", LOWERINGS)
@pytest.mark.parametrize("case", FULL, ids=lambda case: case.name)
def test_a_full_size_member_lowers_and_quantizes(case: Case, runtime: str, tmp_path: Path) -> None:
    check(case, runtime, tmp_path)
