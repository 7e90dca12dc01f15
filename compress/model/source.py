"""Where a Model comes from: one entry for every source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.errors import ModelError, did_you_mean
from compress.model.core import Model, TensorInfo
from compress.model.onnx_file import OnnxFile, take_file, too_large
from compress.recipe import ModelConfig


def load_model(config: ModelConfig, inputs: Sequence[TensorInfo], folder: Path) -> Model | OnnxFile:
    """Builds the Model that a recipe names; an `.onnx` file with operators that cannot be imported stays a file.

    Args:
        config: The recipe's `[model]`.
        inputs: What the data feeds: name, shape without batch, dtype.
        folder: The recipe's folder; paths are relative to it.

    Raises:
        ModelError: If the source cannot be read, built, exported, or does not take these inputs.
    """
    if config.source.endswith(".pt2"):
        from compress.model.pt2 import load_pt2

        if config.weights is not None:
            raise ModelError("model.weights: a .pt2 holds its own weights", "remove the key.")
        return _bound(load_pt2(folder / config.source, config.outputs), inputs, config.source)
    if config.source.endswith(".onnx"):
        from compress.model.onnx_import import UnsupportedOperatorsError, load_onnx

        _refuse_keys(config, "an .onnx file holds its own weights")
        path = folder / config.source
        sizes = {item.name: item.shape for item in inputs}
        model: Model | OnnxFile
        why = too_large(path)
        try:
            model = take_file(path, config.outputs, sizes, why=why) if why else load_onnx(path, config.outputs, sizes)
        except UnsupportedOperatorsError as error:
            model = take_file(path, config.outputs, sizes, error.operators)
        return _bound(model, _without_orphans(model, inputs, path), config.source)
    if ":" in config.source:
        from compress.model.factory import build_module, export_module

        return export_module(build_module(config, folder), inputs, config.outputs, config.source)
    if (folder / config.source).is_dir():
        from compress.model.huggingface import load_huggingface

        _refuse_keys(config, "a Hugging Face folder holds its own weights and settings")
        return load_huggingface(folder / config.source, inputs, config.outputs, where=config.source)
    from compress.model.screen import sniff

    kind = sniff(folder / config.source)
    if kind in ("tflite", "pte"):
        raise ModelError(
            f"model.source: {config.source} is a file for a runtime ({kind}); no graph can be made of it",
            "measure it as it is (edge-compress evaluate, bench), or start from the model that it was made from.",
        )
    raise ModelError(
        f"model.source: {config.source} is not a source that can be compressed (its content is: {kind})",
        "name a factory (file.py:function) with its weights, a .pt2 of torch.export.save, an .onnx, "
        "or a Hugging Face folder.",
    )


def _without_orphans(model: Model | OnnxFile, inputs: Sequence[TensorInfo], path: Path) -> Sequence[TensorInfo]:
    """Leaves out what the file declares and nothing reads; rows may well bring it."""
    takes = {item.name for item in model.signature.inputs}
    if len(inputs) == 1 or takes.issuperset(item.name for item in inputs):
        return inputs
    from compress.model.onnx_import import check_onnx

    orphans = check_onnx(path).orphans
    return [item for item in inputs if item.name not in orphans]


def _refuse_keys(config: ModelConfig, why: str) -> None:
    """Raises if a recipe sets keys that this kind of source does not read."""
    for key in ("weights", "arguments"):
        if getattr(config, key):
            raise ModelError(f"model.{key}: {why}", "remove the key.")


def _bound(model: Model | OnnxFile, inputs: Sequence[TensorInfo], where: str) -> Model | OnnxFile:
    """Checks that the data feeds what a ready graph takes."""
    takes = {item.name: item for item in model.signature.inputs}
    gives = {item.name: item for item in inputs}
    if len(takes) == 1 and len(gives) == 1:
        gives = {next(iter(takes)): next(iter(gives.values()))}
    for name in gives:
        if name not in takes:
            raise ModelError(f"{where}: the model has no input {name!r}", did_you_mean(name, takes))
    for name, item in takes.items():
        given = gives.get(name)
        if given is None:
            raise ModelError(
                f"{where}: nothing feeds the model's input {name!r}",
                f"add it to [data.inputs]; the data gives: {', '.join(sorted(gives)) or 'nothing'}.",
            )
        if given.shape != item.shape:
            raise ModelError(
                f"{where}: the input {name!r} is [batch{''.join(f', {n}' for n in item.shape)}], "
                f"the data gives [batch{''.join(f', {n}' for n in given.shape)}]",
                "check data.features, data.inputs and data.drop.",
            )
    return model
