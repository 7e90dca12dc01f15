"""The Model: an exported graph in eval form, its signature and its lineage. Immutable."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compress.errors import ModelError

# Large enough for any batch that a worker or a calibration asks for.
MAX_BATCH = 65536
# In an archive that ships: its inputs and outputs by name.
SIGNATURE_FILE = "signature.json"
# What torch notes on a node: where it came from, and which module of the source it stands for.
_HISTORY = ("stack_trace", "from_node")
_SOURCE = ("nn_module_stack", "source_fn_stack", "torch_fn")


@dataclass(frozen=True)
class TensorInfo:
    """A named input or output: shape without the batch dimension, and the torch dtype's name (`float32`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """The real names, in the order of the graph."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """An exported graph and what belongs to it.

    1. The graph is in eval form, and its first dimension everywhere outside is a dynamic batch.
    2. Nothing changes a Model in place; a pass returns a new one (`with_program`).
    3. `lineage` lists the steps that led here, the source first.
    4. `attachments` are files that must ship beside the model, by name: its tokenizer (`tokenizer.json`), the names of
       its classes in the order of its scores (`classes.json`). No pass changes them, and no runtime reads them: they
       are no part of the digest, which says what is lowered.
    """

    program: ExportedProgram
    signature: Signature
    lineage: tuple[str, ...]
    attachments: Mapping[str, bytes] = field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 over the graph, the signature and every weight: equal models have equal digests.

        Attachments do not count (rule 4).
        """
        digest = hashlib.sha256()
        digest.update(str(self.program.graph).encode())
        digest.update(repr(self.signature).encode())
        for name, tensor in sorted(state(self.program).items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    def with_program(self, program: ExportedProgram, step: str) -> Model:
        """Returns the Model of another graph with the same signature and attachments.

        Args:
            program: The new graph.
            step: What was done, for the lineage.
        """
        return replace(self, program=program, lineage=(*self.lineage, step))

    def with_attachments(self, attachments: Mapping[str, bytes]) -> Model:
        """Returns the same Model with more files beside it; a name that is there already is replaced."""
        return replace(self, attachments={**self.attachments, **attachments})

    def run(self, inputs: Mapping[str, NDArray[np.generic]], batch: int = 256) -> dict[str, NDArray[np.generic]]:
        """Runs the graph on the CPU, the reference for every artifact.

        Args:
            inputs: Name to `[rows, *shape]`.
            batch: Rows at a time.

        Returns:
            Output name to `[rows, *shape]`.
        """
        rows = len(next(iter(inputs.values())))
        module = self.program.module()
        collected: dict[str, list[NDArray[np.generic]]] = {item.name: [] for item in self.signature.outputs}
        with torch.no_grad():
            for start in range(0, rows, batch):
                result = module(*self.arguments({name: inputs[name][start : start + batch] for name in inputs}))
                for item, tensor in zip(self.signature.outputs, pytree.tree_leaves(result), strict=True):
                    collected[item.name].append(tensor.numpy())
        return {name: np.concatenate(parts) for name, parts in collected.items()}

    def arguments(self, inputs: Mapping[str, NDArray[np.generic]]) -> tuple[torch.Tensor, ...]:
        """Returns named arrays as the tensors that the graph takes, in its order and dtypes."""
        return tuple(
            torch.as_tensor(np.ascontiguousarray(inputs[item.name])).to(getattr(torch, item.dtype))
            for item in self.signature.inputs
        )

    def example(self, rows: int = 2) -> tuple[torch.Tensor, ...]:
        """Returns synthetic inputs, never a customer's row: seeded noise for floats, zeros for integers."""
        return example_inputs(self.signature.inputs, rows)

    def to_bytes(self, *, shipped: bool = False) -> bytes:
        """Returns the `.pt2` archive. Example inputs are synthetic and stack traces are stripped.

        It is written through a buffer because the archive's bytes would depend on the file's name otherwise.

        Args:
            shipped: Whether it is to run elsewhere: then it also states the names of inputs and outputs in order
                (`extra/signature.json`), and holds no example inputs and nothing of the source's modules.
        """
        names = {"inputs": [item.name for item in self.signature.inputs]}
        names["outputs"] = [item.name for item in self.signature.outputs]
        extra = {SIGNATURE_FILE: json.dumps(names)} if shipped else None
        example: Any = None if shipped else (self.example(), {})
        with _anonymous(self.program, example, (*_HISTORY, *_SOURCE) if shipped else _HISTORY):
            buffer = io.BytesIO()
            torch.export.save(self.program, buffer, extra_files=extra)
        return buffer.getvalue()


def example_inputs(inputs: tuple[TensorInfo, ...], rows: int) -> tuple[torch.Tensor, ...]:
    """Returns synthetic tensors of the given kinds, `[rows, *shape]`."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for item in inputs:
        dtype = getattr(torch, item.dtype)
        shape = (rows, *item.shape)
        if dtype.is_floating_point:
            result.append(torch.rand(shape, generator=generator).to(dtype))
        else:
            result.append(torch.zeros(shape, dtype=dtype))
    return tuple(result)


def state(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Returns every tensor that the graph holds: parameters, buffers, constants, by full name."""
    tensors = dict(program.state_dict)
    for name, value in program.constants.items():
        if isinstance(value, torch.Tensor):
            tensors.setdefault(name, value)
    return tensors


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Returns the raw content of a tensor, row-major."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def tie(program: ExportedProgram) -> None:
    """Makes tensors over one storage one object again, in place.

    A save and load gives two parameters over one storage; an optimizer, the cost and a cut would see two.
    """
    seen: dict[tuple[int, int, tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}
    for name, tensor in program.state_dict.items():
        if tensor.numel() == 0:
            continue
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        program.state_dict[name] = seen.setdefault(key, tensor)


def check_eval(program: ExportedProgram, where: str) -> None:
    """Refuses a graph that was exported in training form.

    Raises:
        ModelError: Naming the first node that trains.
    """
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        target = str(node.target)
        arguments = {**_named_arguments(node), **node.kwargs}
        trains = (
            ("dropout" in target and arguments.get("train"))
            or ("batch_norm" in target and arguments.get("training"))
            # Attention has no such switch: a module that forgets to look at `self.training` always drops.
            or ("attention" in target and arguments.get("dropout_p"))
        )
        if trains:
            raise ModelError(
                f"{where}: the node {node.name!r} ({target}) is in training form",
                "call model.eval() before the export; a functional dropout must look at self.training.",
            )


def _named_arguments(node: torch.fx.Node) -> dict[str, object]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    return {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)}


@contextmanager
def _anonymous(program: ExportedProgram, example: Any, dropped: tuple[str, ...]) -> Iterator[None]:
    """Takes out of a program what belongs to one machine or one process while it is saved, then puts it back.

    Those are example inputs, source lines, and the history of each node, which names graphs by memory address.
    """
    inputs = program._example_inputs
    kept = [(node, node.meta) for node in program.graph.nodes]
    program._example_inputs = example
    try:
        for node, meta in kept:
            node.meta = {key: value for key, value in meta.items() if key not in dropped}
        yield
    finally:
        program._example_inputs = inputs
        for node, meta in kept:
            node.meta = meta
