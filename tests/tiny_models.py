"""Tiny models with the shapes of real ones, and rows for them. Imports torch: only for tests that need it anyway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import old_interpreter
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compress.calibrate import Ranges
from compress.data.base import Dataset
from compress.data.memory import MemoryReader
from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.passes.base import Context, run_pass
from compress.recipe import QuantScheme
from compress.runtimes.base import Lowered
from compress.target import Target

Arrays = dict[str, NDArray[Any]]


class Mlp(nn.Module):
    """Two ReLU layers, a layer that has the name of the output behind it, an output without width."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(12, 32)
        self.middle = nn.Linear(32, 32)
        self.score = nn.Linear(32, 1)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.middle(torch.relu(self.up(features))))
        return {"score": self.score(hidden).squeeze(-1)}


class ConvNet(nn.Module):
    """Strided, depthwise and pointwise convolutions with batch normalisation, ReLU6 and a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depth_norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 16, 1, bias=False)
        self.point_norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 8)

    def forward(self, image: Tensor) -> Tensor:
        hidden = F.relu6(self.stem_norm(self.stem(image)))
        hidden = F.relu6(self.depth_norm(self.depth(hidden)))
        return self.head(self.point_norm(self.point(hidden)).mean((2, 3)))


class Attention(nn.Module):
    """A pre-norm block over tokens that come from raw numbers and a raw code, which the same vector holds."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Embedding(6, 16)
        self.lift = nn.Linear(1, 16)
        self.norm = nn.LayerNorm(16)
        self.q = nn.Linear(16, 16)
        self.k = nn.Linear(16, 16)
        self.v = nn.Linear(16, 16)
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        code = rows[:, 0].clamp(0, 5).to(torch.int64)
        tokens = torch.cat([self.codes(code).unsqueeze(1), self.lift(rows[:, 1:].unsqueeze(-1))], dim=1)
        normed = self.norm(tokens)
        q, k, v = (layer(normed).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return {"logit": self.head((tokens + self.out(attended)).mean(1))}


class TwoWays(nn.Module):
    """Two inputs and two outputs, none in alphabetical order; one output is computed from the other."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(8, 16)
        self.right = nn.Linear(4, 16)
        self.tail = nn.Linear(16, 5)

    def forward(self, zeta: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        logit = self.tail(torch.relu(self.left(zeta) + self.right(alpha)))
        return {"logit": logit, "default": torch.sigmoid(logit)}


def normal(*shape: int) -> Callable[[np.random.Generator, int], NDArray[Any]]:
    """Gives standard normal float32 `[rows, *shape]`."""
    return lambda random, rows: random.standard_normal((rows, *shape)).astype(np.float32)


def raw_rows(random: np.random.Generator, rows: int) -> NDArray[Any]:
    """Gives a code from 0 to 5 and four numbers, all float32."""
    values = random.standard_normal((rows, 5)).astype(np.float32)
    values[:, 0] = random.integers(0, 6, rows)
    return values


TINY: dict[str, tuple[Callable[[], nn.Module], dict[str, Callable[[np.random.Generator, int], NDArray[Any]]]]] = {
    "mlp": (Mlp, {"features": normal(12)}),
    "conv": (ConvNet, {"image": normal(3, 12, 12)}),
    "attention": (Attention, {"rows": raw_rows}),
    "two-ways": (TwoWays, {"zeta": normal(8), "alpha": normal(4)}),
}


def built(factory: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Gives a module in eval form with seeded weights, its normalisations as if they had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = factory()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                if part.affine:
                    nn.init.uniform_(part.weight, 0.5, 1.5)
                    nn.init.normal_(part.bias, 0, 0.3)
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 2)
    return module.eval()


def exported(module: nn.Module, arrays: Arrays, outputs: tuple[str, ...] = ()) -> Model:
    """Gives the Model of a module that takes such arrays `[rows, ...]`."""
    inputs = [TensorInfo(name, array.shape[1:], array.dtype.name) for name, array in arrays.items()]
    return export_module(module, inputs, outputs, "model.py:build")


def in_memory(arrays: Arrays) -> Dataset:
    """Gives rows without labels, the first three quarters of them for calibration."""
    rows = len(next(iter(arrays.values())))
    everything = np.arange(rows)
    dealt = {"calibration": everything[: rows * 3 // 4], "test": everything[rows * 3 // 4 :]}
    return Dataset(
        source="memory",
        ids=np.array([f"row {row}" for row in everything]),
        reader=MemoryReader(arrays),
        labels={},
        sensitive={},
        splits={"train": everything[:0], "validation": everything[:0], **dealt},
    )


def folded(model: Model) -> Model:
    """Gives what every lowering gets: batch normalisation folded where that is possible."""
    return run_pass("fold_batch_norm", model, None, Context(), allow_no_change=True).model


@dataclass(frozen=True)
class Tiny:
    """A tiny Model and a source of rows for it."""

    name: str
    model: Model

    def rows(self, count: int, seed: int = 0) -> Arrays:
        """Gives `count` rows of every input."""
        random = np.random.default_rng(seed)
        return {name: make(random, count) for name, make in TINY[self.name][1].items()}

    @property
    def calibration(self) -> list[Arrays]:
        """256 rows in batches of 64."""
        rows = self.rows(256, seed=1)
        return [{name: array[start : start + 64] for name, array in rows.items()} for start in range(0, 256, 64)]


def tiny(name: str) -> Tiny:
    """Builds and exports one of `TINY`."""
    factory, inputs = TINY[name]
    arrays = {key: make(np.random.default_rng(0), 2) for key, make in inputs.items()}
    return Tiny(name, exported(built(factory), arrays))


class Workshop:
    """Lowered and quantized files, each made once for all tests that ask for it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Any] = {}

    def tiny(self, name: str, *, fold: bool = False) -> Tiny:
        """Gives a tiny Model, on request with its normalisations folded."""
        made: Tiny = self._once(("tiny", name), lambda: tiny(name))
        if fold:
            made = self._once(("folded", name), lambda: Tiny(name, folded(made.model)))
        return made

    def ranges(self, name: str) -> Ranges:
        """Gives the ranges of a folded tiny Model over its calibration rows."""
        from compress.calibrate import calibrate

        found: Ranges = self._once(
            ("ranges", name), lambda: calibrate(self.tiny(name, fold=True).model, self.tiny(name).calibration)
        )
        return found

    def lowered(self, runtime: str, name: str) -> Lowered:
        """Gives the float32 file of a folded tiny Model."""
        shared = converter(runtime)
        made: Lowered = self._once(
            ("lowered", shared, name), lambda: engine(shared).lower(self.tiny(name, fold=True).model)
        )
        return made

    def artifact(self, runtime: str, name: str, scheme: QuantScheme, cpu: str = "any") -> Lowered:
        """Gives the file with a scheme realised; float32 is the lowered file itself."""
        lowered = self.lowered(runtime, name)
        if scheme.dtype == "float32":
            return lowered
        made: Lowered = self._once(
            ("artifact", runtime, name, scheme, cpu),
            lambda: engine(runtime).quantize(lowered, scheme, self.ranges(name), target(runtime, cpu)),
        )
        return made

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def engine(runtime: str) -> Any:
    """Gives a registered runtime's lowering."""
    from compress.runtimes.base import RUNTIMES

    return RUNTIMES.load(runtime)()


def converter(runtime: str) -> str:
    """Gives the runtime whose lowering makes a runtime's float32 files, byte for byte."""
    return {"tflite_runtime": "litert", "tensorrt": "onnxruntime"}.get(runtime, runtime)


def target(runtime: str, cpu: str = "any") -> Target:
    """Gives a target of a runtime."""
    gpu = {"provider": "cuda", "flavour": "tensorrt"} if runtime == "tensorrt" else {}
    return Target.model_validate({"schema": 1, "runtime": runtime, "cpu": cpu, **gpu})


def answers(runtime: str, data: bytes, arrays: Arrays) -> Arrays:
    """Runs a file in its own runtime, one thread, one row after the other where the batch is fixed."""
    runs = {
        "onnxruntime": _onnxruntime,
        "tensorrt": _network,
        "litert": _litert,
        "tflite_runtime": old_interpreter.answers,
        "executorch": _executorch,
        "torch": _torch,
    }
    return runs[runtime](data, arrays)


def _network(data: bytes, arrays: Arrays) -> Arrays:
    """What TensorRT is given is an `.onnx` file, which ONNX Runtime understands the same way: each operator as written.

    Its integer kernels stay out: without dot products on the processor, those add up eight-bit weights in too few bits.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _answered(data, arrays, options)


def _onnxruntime(data: bytes, arrays: Arrays) -> Arrays:
    import onnxruntime

    return _answered(data, arrays, onnxruntime.SessionOptions())


def _answered(data: bytes, arrays: Arrays, options: Any) -> Arrays:
    import onnxruntime

    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, arrays), strict=True))


def _litert(data: bytes, arrays: Arrays) -> Arrays:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=data, num_threads=1).get_signature_runner()
    kinds = {name: details["dtype"] for name, details in runner.get_input_details().items()}
    rows = [
        runner(**{name: array[row : row + 1].astype(kinds[name]) for name, array in arrays.items()})
        for row in range(len(next(iter(arrays.values()))))
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _executorch(data: bytes, arrays: Arrays) -> Arrays:
    import json

    from executorch.extension.pybindings import portable_lib

    module = portable_lib._load_for_executorch_from_buffer(data)
    about = json.loads(module.run_method("about", [])[0])
    given = [torch.from_numpy(arrays[name]) for name in about["inputs"]]
    rows = [
        [made.numpy().copy() for made in module.run_method("forward", [array[row : row + 1] for array in given])]
        for row in range(len(given[0]))
    ]
    return {name: np.concatenate(parts) for name, parts in zip(about["outputs"], zip(*rows, strict=True), strict=True)}


def _torch(data: bytes, arrays: Arrays) -> Arrays:
    """The Session itself, in this process; a worker of its own for every file would take seconds."""
    import hashlib
    import tempfile
    from pathlib import Path

    from compress.worker.torch_session import TorchSession

    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        path.write_bytes(data)
        try:
            with TorchSession(path, 1, screened=(hashlib.sha256(data).hexdigest(),)) as session:
                return session.run(arrays)
        finally:
            torch.set_num_threads(threads)


def sqnr_db(reference: NDArray[Any], got: NDArray[Any]) -> float:
    """Gives 10 log10(sum ref^2 / sum (ref - got)^2)."""
    error = np.sum((reference.astype(np.float64) - got.astype(np.float64)) ** 2)
    return float(10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / max(error, 1e-30)))
