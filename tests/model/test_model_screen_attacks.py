"""Crafted archives: each runs code with plain torch, and is refused before torch sees it."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.errors import UnsafeFileError
from compress.model.screen import screen_pt2, screened_pt2

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"
VICTIM = """
import sys, torch
for path in sys.argv[1:]:
    try:
        program = torch.export.load(path)
        program.module()(torch.ones(2, 3))
    except BaseException:
        pass
"""


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


class Small(nn.Module):
    """One linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"score": self.head(x)}


Members = dict[str, bytes]


def saved(module: nn.Module, *inputs: torch.Tensor, dynamic: bool = True) -> Members:
    """Exports and saves a module; returns the archive's members."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = tuple({0: batch} for _ in inputs) if dynamic else None
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def written(members: Members, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return path


def edited(members: Members, name: str, edit: Callable[[Any], object]) -> Members:
    """Returns the members with one JSON member changed in place by a function."""
    table = json.loads(members[name])
    edit(table)
    return {**members, name: json.dumps(table).encode()}


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def call(folder: str) -> str:
    return f"__import__('os').mkdir('{folder}')"


def pickled_weight(members: Members, folder: str) -> Members:
    changed = edited(members, WEIGHTS, lambda table: table["config"]["head.weight"].update(use_pickle=True))
    return {**changed, "data/weights/weight_0": torch_pickle(Canary(folder))}


def pickled_constant(members: Members, folder: str) -> Members:
    entry = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    changed = edited(members, CONSTANTS, lambda table: table["config"].update(c=entry))
    return {**changed, "data/constants/tensor_0": torch_pickle(Canary(folder))}


def opaque_constant(members: Members, folder: str) -> Members:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    changed = edited(members, CONSTANTS, lambda table: table["config"].update(c=entry))
    return {**changed, "data/constants/opaque_obj_0": pickle.dumps(Canary(folder))}


def legacy_weights(members: Members, folder: str) -> Members:
    return {**members, "data/weights/model.pt": torch_pickle(Canary(folder))}


def sample_inputs(members: Members, folder: str) -> Members:
    return {**members, SAMPLES: torch_pickle(((Canary(folder),), {}))}


def bare_sample_inputs(members: Members, folder: str) -> Members:
    return {**members, SAMPLES: pickle.dumps(Canary(folder), protocol=2)}


def expression(members: Members, folder: str) -> Members:
    def edit(program: Any) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": call(folder), "hint": None}}

    return edited(members, PROGRAM, edit)


def input_name(members: Members, folder: str) -> Members:
    name = json.dumps(f"x={call(folder)}").encode()
    return {**members, PROGRAM: members[PROGRAM].replace(b'"name": "x"', b'"name": ' + name).replace(b'"x": {', name + b": {")}


def parameter_name(members: Members, folder: str) -> Members:
    name = f"""-"), {call(folder)}, ("-"""
    replaced = {
        member: members[member].replace(b'"head.weight"', json.dumps(name).encode()) for member in (PROGRAM, WEIGHTS)
    }
    return {**members, **replaced}


def keyword_name(members: Members, folder: str) -> Members:
    def edit(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        protocol, tree = json.loads(signature["in_spec"])
        arguments, keywords = tree["children_spec"]
        keywords["children_spec"], arguments["children_spec"] = arguments["children_spec"], []
        keywords["context"] = json.dumps([f"x={call(folder)}"])
        signature.update(in_spec=json.dumps([protocol, tree]), forward_arg_names=None)

    return edited(members, PROGRAM, edit)


def guard(members: Members, folder: str) -> Members:
    return edited(members, PROGRAM, lambda program: program.update(guards_code=[f"{call(folder)} is None"]))


def tree_factory(members: Members, folder: str) -> Members:
    context = {"default_factory_module": f"module_of_{folder}", "default_factory_name": "f", "dict_context": []}
    return _with_out_spec(members, {"type": "collections.defaultdict", "context": context, "children_spec": []})


def tree_enum(members: Members, folder: str) -> Members:
    context = json.dumps([{"__enum__": True, "fqn": f"module_of_{folder}:Kind", "name": "A"}])
    return _with_out_spec(members, {"type": "builtins.dict", "context": context, "children_spec": []})


def _with_out_spec(members: Members, tree: dict[str, object]) -> Members:
    def edit(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, tree])

    return edited(members, PROGRAM, edit)


def file_operator(members: Members, folder: str) -> Members:
    def edit(program: Any) -> None:
        node = {
            "target": "torch.ops.aten.from_file.default",
            "inputs": [
                {"name": "filename", "arg": {"as_string": folder}, "kind": 1},
                {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
                {"name": "size", "arg": {"as_int": 4}, "kind": 1},
            ],
            "outputs": [{"as_tensor": {"name": "mapped"}}],
            "metadata": {},
        }
        graph = program["graph_module"]["graph"]
        graph["tensor_values"]["mapped"] = graph["tensor_values"]["p_head_bias"]
        graph["nodes"].append(node)

    return edited(members, PROGRAM, edit)


def any_function(members: Members, folder: str) -> Members:
    def edit(program: Any) -> None:
        node = {
            "target": "torch.os.mkdir",
            "inputs": [{"name": "", "arg": {"as_string": folder}, "kind": 1}],
            "outputs": [],
            "metadata": {},
        }
        program["graph_module"]["graph"]["nodes"].append(node)

    return edited(members, PROGRAM, edit)
