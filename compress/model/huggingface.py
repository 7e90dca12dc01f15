"""A Model from a Hugging Face folder: sequence classification, `config.json` and `model.safetensors`.

The architecture is built from the installed package `transformers` by the name that `config.json` gives; weights are
read by this project's own reader. So no code of the folder is run, and nothing looks at the network.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.data.text_tokenizer import FILE, KINDS, load_tokenizer
from compress.errors import ModelError, did_you_mean
from compress.model.belongings import CLASSES, class_file
from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.model.weights import load_into
from compress.registry import require

WEIGHTS = "model.safetensors"
SCORES = "scores"
MAX_CONFIG_BYTES = 16 << 20
_TASK = "ForSequenceClassification"


class NamedClassifier(nn.Module):
    """A classifier of transformers that takes plain tensors and gives `{"scores": [batch, classes]}`.

    It has the classifier's own children, so that layers and weights keep their names (`bert.encoder.layer.0...`).
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        for name, child in classifier.named_children():
            self.add_module(name, child)
        for name, parameter in classifier.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        # In a tuple, where it is no child: everything that it holds is here already.
        self._classifier = (classifier,)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Gives the unnormalised scores for int64 `[batch, length]`; mask 1 for a token, 0 for padding."""
        given = dict(zip(KINDS, (input_ids, attention_mask, token_type_ids), strict=True))
        answer = self._classifier[0](**{name: value for name, value in given.items() if value is not None})
        return {SCORES: answer.logits}


def load_huggingface(folder: Path, inputs: Sequence[TensorInfo], outputs: Sequence[str] = (), where: str = "") -> Model:
    """Builds the Model of a Hugging Face folder, with its tokenizer and the names of its classes beside it.

    Args:
        folder: Holds `config.json` and `model.safetensors`; a tokenizer, if it has one, becomes an attachment that cuts
            and pads at the length of the inputs.
        inputs: `input_ids`, and `attention_mask` and `token_type_ids` as far as the data feeds them: whole numbers,
            `[length]` a row, the same length for all.
        outputs: A name for the scores; `scores` without it.
        where: What the recipe calls the source, for messages and lineage; the folder's name without it.

    Raises:
        ModelError: If the folder is incomplete, asks for code of its own, is no sequence classification, does not take
            these inputs, or has fewer positions than they have tokens.
        UnsafeFileError: If the file of weights is not what it seems.
        MissingPackageError: If transformers is not installed.
    """
    where = where or folder.name
    settings = read_config(folder)
    _check_weights(folder)
    with _offline():
        classifier = _build(require("transformers", why="a Hugging Face folder"), settings, folder)
    stored = set(classifier.state_dict())
    load_into(classifier, folder / WEIGHTS, ignored={name for name, _ in classifier.named_buffers()} - stored)
    classifier.eval()
    length = _check_inputs(classifier, inputs, where)
    _check_positions(classifier, length, where)
    model = export_module(NamedClassifier(classifier).eval(), inputs, outputs, where)
    return model.with_attachments(_attachments(classifier, folder, length))


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a folder's `config.json` and refuses what would run or fetch something.

    Raises:
        ModelError: If there is none, it is damaged, or it names code of its own or quantized weights.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: there is no config.json", "save the model with model.save_pretrained(folder).")
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}", "save the model again.") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        raise ModelError(f"{path}: does not say which model_type it is", "save it with model.save_pretrained(folder).")
    for key, value in _every(settings):
        if key in ("auto_map", "trust_remote_code") and value:
            raise ModelError(
                f"{path}: {key} asks to run code that came with the model, which is never done",
                "use an architecture of transformers itself, or name a factory (file.py:function) that you have read.",
            )
        if key == "quantization_config" and value:
            raise ModelError(
                f"{path}: quantization_config: the weights are quantized already",
                "start from the float model: what is rounded once cannot be judged beside its original.",
            )
    named = [str(name) for name in settings.get("architectures") or []]
    if not any(name.endswith(_TASK) for name in named):
        raise ModelError(
            f"{path}: architectures says {', '.join(named) or 'nothing'}, not {_TASK}: without a trained head there is "
            "nothing to score",
            "fine-tune it with AutoModelForSequenceClassification and save it with save_pretrained.",
        )
    return settings


def _every(value: object) -> Iterator[tuple[str, object]]:
    """Every key of a JSON value with what it holds, at any depth."""
    if isinstance(value, dict):
        for key, held in value.items():
            yield key, held
            yield from _every(held)
    elif isinstance(value, list):
        for held in value:
            yield from _every(held)


def _check_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    others = sorted(
        path.name for pattern in ("*.bin", "*.h5", "*.msgpack", "*.safetensors*") for path in folder.glob(pattern)
    )
    if any(name.startswith(WEIGHTS.partition(".")[0]) and ".safetensors" in name for name in others):
        remedy = 'write one file: model.save_pretrained(folder, max_shard_size="100GB").'
    else:
        remedy = (
            "convert it where you trust the file: AutoModelForSequenceClassification.from_pretrained(folder)"
            ".save_pretrained(folder, safe_serialization=True)."
        )
    held = f"; it holds {', '.join(others[:5])}" if others else ""
    raise ModelError(f"{folder}: there is no {WEIGHTS}{held}", remedy)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keeps the packages of Hugging Face away from the network and the terminal while they load.

    What they read from the environment when they are imported holds for the whole process.
    """
    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")}
    level = logging.root.manager.disable
    os.environ.update(dict.fromkeys(before, "1"))
    # transformers imports whatever else is installed (torchao), and that warns.
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _build(transformers: Any, settings: dict[str, Any], folder: Path) -> nn.Module:
    """The architecture with random weights; which attention it uses and its precision are not the file's to say."""
    chosen = {
        key: value
        for key, value in settings.items()
        if "attn_implementation" not in key and key not in ("dtype", "torch_dtype", "_name_or_path", "model_type")
    }
    try:
        config = transformers.AutoConfig.for_model(settings["model_type"], **chosen)
        built: nn.Module = transformers.AutoModelForSequenceClassification.from_config(config, dtype=None)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"{folder / 'config.json'}: transformers cannot build a {settings['model_type']!r} from it: "
            f"{type(error).__name__}: {lines[0][:300]}",
            "is the model_type one of the installed version of transformers, and does the file fit it?",
        ) from error
    if type(built).__name__ not in settings["architectures"]:
        raise ModelError(
            f"{folder / 'config.json'}: architectures says {', '.join(settings['architectures'])}, its model_type "
            f"gives {type(built).__name__}",
            "save the model again with save_pretrained.",
        )
    return built


def _check_inputs(classifier: nn.Module, inputs: Sequence[TensorInfo], where: str) -> int:
    """Checks names, types and shapes of what the data feeds; returns the number of tokens."""
    parameters = inspect.signature(classifier.forward).parameters
    takes = [name for name in KINDS if name in parameters]
    for item in inputs:
        if item.name not in takes:
            raise ModelError(
                f"{where}: the model has no input {item.name!r}",
                f"feed it texts with [data.text], or token ids by name; {did_you_mean(item.name, takes)}",
            )
        if item.dtype not in ("int64", "int32") or len(item.shape) != 1:
            raise ModelError(
                f"{where}: the input {item.name!r} is {item.dtype} {list(item.shape)} a row, not one row of token ids",
                "feed whole numbers, [length] a row: [data.text] does.",
            )
    lengths = {item.name: item.shape[0] for item in inputs}
    if "input_ids" not in lengths:
        raise ModelError(f"{where}: nothing feeds the model's input 'input_ids'", "add it to [data.inputs].")
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ModelError(f"{where}: inputs of different lengths: {text}", "give all of them the same length.")
    return lengths["input_ids"]


def _check_positions(classifier: nn.Module, length: int, where: str) -> None:
    """Refuses more tokens than the model has positions: the look-up would leave its table."""
    for name, module in classifier.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            # RoBERTa and its kin count positions from behind the padding's.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            positions = module.num_embeddings - first
            if length > positions:
                raise ModelError(
                    f"{where}: data.text.length = {length}, but the model has {positions} positions",
                    "cut texts at fewer tokens: lower data.text.length.",
                )


def _attachments(classifier: nn.Module, folder: Path, length: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    if (folder / FILE).is_file() or (folder / "vocab.txt").is_file():
        files[FILE] = load_tokenizer(folder, length).definition
    labels: dict[int, str] = dict(getattr(classifier.config, "id2label", None) or {})
    names = [str(labels.get(number, f"LABEL_{number}")) for number in range(len(labels))]
    if names != [f"LABEL_{number}" for number in range(len(names))]:
        files[CLASSES] = class_file(names)
    return files
