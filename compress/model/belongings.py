"""What must fit a Model and ship beside it: the tokenizer that reads its texts, the names of its classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import torch

from compress.data.base import Dataset
from compress.data.text import TextReader, text_reader
from compress.data.text_tokenizer import FILE, TextTokenizer
from compress.errors import ModelError
from compress.model.core import Model, state
from compress.model.onnx_file import OnnxFile

CLASSES = "classes.json"
# Operators that hand ids on as they are.
_PASSING = (
    "aten.to.",
    "aten._to_copy.",
    "aten.view.",
    "aten.reshape.",
    "aten.expand.",
    "aten.slice.",
    "aten.unsqueeze.",
)
_EMBEDDING = "aten.embedding.default"
_INDEX = "aten.index.Tensor"


def check_vocabulary(dataset: Dataset, model: Model) -> None:
    """Checks that the texts' tokenizer is that of the model; datasets without texts pass.

    1. Every id has a row in the table that the model looks it up in.
    2. Where the model brings a tokenizer of its own, both give the same ids.

    Raises:
        ModelError: Saying which of the two fails, and by how much.
    """
    reader = text_reader(dataset)
    if reader is None:
        return
    where = model.lineage[0]
    for name in token_tables(dataset, model):
        rows = state(model.program)[name].shape[0]
        if reader.tokenizer.rows > rows:
            raise ModelError(
                f"{where}: the tokenizer of data.text gives ids up to {reader.tokenizer.rows - 1}, the model's table "
                f"{name} has {rows} rows",
                "name the tokenizer that the model was trained with in data.text.tokenizer.",
            )
    own = model.attachments.get(FILE)
    if own is not None and own != reader.tokenizer.definition:
        raise ModelError(
            f"{where}: the tokenizer of data.text is not the model's own: "
            f"{_difference(reader.tokenizer, TextTokenizer(own, reader.tokenizer.length))}",
            "remove data.text.tokenizer; the model's folder holds the right one.",
        )


def carry(model: Model | OnnxFile, dataset: Dataset, classes: Sequence[str] = ()) -> Model | OnnxFile:
    """Returns the Model with all that must ship beside it, after checking that it fits.

    Args:
        model: As loaded.
        dataset: Its texts' tokenizer ships with the model.
        classes: Names of the label's classes in the order of the numbers that the data gives them; empty where they
            have none.

    Raises:
        ModelError: If the tokenizer is not the model's, or the model names its classes otherwise.
    """
    if isinstance(model, Model):
        check_vocabulary(dataset, model)
    files: dict[str, bytes] = {}
    reader = text_reader(dataset)
    if reader is not None:
        files |= reader.attachments()
    if classes:
        _check_classes(model, classes)
        files[CLASSES] = class_file(classes)
    return model.with_attachments(files) if files else model


def class_file(names: Sequence[str]) -> bytes:
    """Returns the content of `classes.json`: a list of names in the order of the scores."""
    return (json.dumps(list(names), ensure_ascii=False, indent=1) + "\n").encode()


def _check_classes(model: Model | OnnxFile, classes: Sequence[str]) -> None:
    own = model.attachments.get(CLASSES)
    if own is None:
        return
    names = json.loads(own)
    if len(names) != len(classes):
        raise ModelError(
            f"{model.lineage[0]}: the model names {len(names)} classes, data.categories {len(classes)}",
            "list the label's classes in data.categories as the model does, in its order.",
        )
    for number, (name, listed) in enumerate(zip(names, classes, strict=True)):
        if name != listed:
            raise ModelError(
                f"{model.lineage[0]}: the model calls class {number} {name!r}, data.categories {listed!r}",
                "list the label's classes in data.categories in the model's order.",
            )


def token_tables(dataset: Dataset, model: Model) -> tuple[str, ...]:
    """Returns the full names of the tables in which a model looks up token ids; none where it reads no texts."""
    reader = text_reader(dataset)
    return () if reader is None else tuple(dict.fromkeys(_tables(dataset, reader, model)))


def _tables(dataset: Dataset, reader: TextReader, model: Model) -> Iterator[str]:
    # Renamed inputs keep their order.
    names = [spec.name for spec in dataset.reader.signature()]
    fed = {name for name, kind in zip(names, reader.inputs.values(), strict=True) if kind == "input_ids"}
    graph = model.program.graph_signature
    held = {**graph.inputs_to_parameters, **graph.inputs_to_buffers}
    nodes = {node.name: node for node in model.program.graph.nodes}
    for item, placeholder in zip(model.signature.inputs, graph.user_inputs, strict=True):
        if item.name not in fed:
            continue
        for node in _embeddings(nodes[str(placeholder)]):
            table = node.args[0]
            name = held.get(table.name) if isinstance(table, torch.fx.Node) else None
            if name is not None:
                yield name


def _embeddings(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """The look-ups whose index is this value, handed on unchanged; a map from ids to rows is one, too."""
    for user in node.users:
        if (str(user.target) == _EMBEDDING and user.args[1] is node) or (
            str(user.target) == _INDEX and user.args[1] == [node]
        ):
            yield user
        elif str(user.target).startswith(_PASSING) and user.args[0] is node:
            yield from _embeddings(user)


def _difference(one: TextTokenizer, other: TextTokenizer) -> str:
    if len(one.vocabulary) != len(other.vocabulary):
        return f"it has {len(one.vocabulary):,} tokens, the model's {len(other.vocabulary):,}"
    for token, number in sorted(one.vocabulary.items(), key=lambda item: item[1]):
        if other.vocabulary.get(token) != number:
            return f"its token {number} is {token!r}, the model's {other.token(number)!r}"
    return "they have the same tokens, but prepare texts differently (case, accents, special tokens or padding)"
