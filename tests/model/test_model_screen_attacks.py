"""Crafted archives: each runs code with plain torch, and is refused before torch sees it."""

from __future__ import annotations

import ast
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

import compress.model.screen
from compress.errors import UnsafeFileError
from compress.model.screen import screen_pt2, screened_pt2
from compress.model.screen_program import ELEMENT_BYTES, check_program
from compress.model.screen_refusal import Refusal

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"
VICTIM = """
import sys, torch
for path in sys.argv[1:]:
    try:
        program = torch.export.load(path)
        arguments, keywords = program.example_inputs or ((torch.ones(2, 3),), {})
        program.module()(*arguments, **keywords)
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


class Rich(nn.Module):
    """Has every kind of string that a program can hold: branches, symbols, guards, constants, padding by name."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)
        self.factor = torch.ones(3)

    def forward(self, x: torch.Tensor, other: torch.Tensor, mode: str) -> dict[str, torch.Tensor]:
        padded = nn.functional.pad(x, (1, 0), mode="constant", value=float(len(mode)))
        doubled = torch.full((2 * x.shape[0],), 0.5)
        chosen = torch.cond(x.shape[0] > 3, lambda a: a.sin(), lambda a: a.cos(), (x + other,))
        return {"score": self.head(chosen * self.factor), "padded": padded, "doubled": doubled}


class Moded(nn.Module):
    """Takes a plain string, which becomes a guard."""

    def forward(self, x: torch.Tensor, mode: str) -> torch.Tensor:
        return x * (2 if mode == "plain" else 3)


Members = dict[str, bytes]


def saved(module: nn.Module, *inputs: object, dynamic: bool = True) -> Members:
    """Exports and saves a module; returns the archive's members."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = tuple({0: batch} if isinstance(value, torch.Tensor) else None for value in inputs) if dynamic else None
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
    return f'__import__("os").mkdir("{folder}")'


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
    return {
        **members,
        PROGRAM: members[PROGRAM].replace(b'"name": "x"', b'"name": ' + name).replace(b'"x": {', name + b": {"),
    }


def parameter_name(members: Members, folder: str) -> Members:
    name = f"""\"+str(getattr(__import__('os'), 'mkdir')('{folder}'))+\""""
    replaced = {
        member: members[member].replace(b'"head.weight"', json.dumps(name).encode()) for member in (PROGRAM, WEIGHTS)
    }
    return {**members, **replaced}


def argument_name(members: Members, folder: str) -> Members:
    def edit(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"].append(f"y={call(folder)}")

    return edited(members, PROGRAM, edit)


def constant_string(members: Members, folder: str) -> Members:
    text = f"""' or {call(folder)} or '"""
    moded = saved(Moded(), torch.ones(2, 3), "plain", dynamic=False)
    return {**moded, PROGRAM: moded[PROGRAM].replace(b'"plain"', json.dumps(text).encode())}


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


ATTACKS: dict[Callable[[Members, str], Members], str] = {
    pickled_weight: "key config.head.weight.use_pickle",
    pickled_constant: "key config.c.use_pickle",
    opaque_constant: "opaque_obj_0",
    legacy_weights: "data/weights/model.pt",
    sample_inputs: "posix.mkdir",
    bare_sample_inputs: "bare pickle",
    expression: "tensor_values.x.sizes[0].as_expr.expr_str",
    input_name: "graph.inputs[2].as_tensor.name",
    parameter_name: "pastes names into source",
    argument_name: "forward_arg_names[1]",
    constant_string: "graph.inputs[1].as_string",
    guard: "key guards_code[0]",
    tree_factory: "collections.defaultdict",
    tree_enum: "__enum__",
    file_operator: "torch.ops.aten.from_file.default",
}
"""Each attack, and what the refusal must name."""


@pytest.fixture(scope="module")
def members() -> Members:
    return saved(Small(), torch.ones(2, 3))


@pytest.fixture(scope="module")
def attacked(members: Members, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which plain torch has loaded, built and run every crafted archive."""
    folder = tmp_path_factory.mktemp("attacked")
    paths = []
    for attack in ATTACKS:
        paths.append(written(attack(members, f"{attack.__name__}_ran"), folder / f"{attack.__name__}.pt2"))
        module = folder / f"module_of_{attack.__name__}_ran.py"
        module.write_text(f"import os\nos.mkdir('{attack.__name__}_ran')\n")
    command = [sys.executable, "-W", "ignore", "-c", VICTIM, *map(str, paths)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    yield folder


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attack_runs_code_with_plain_torch(attack: Callable[[Members, str], Members], attacked: Path) -> None:
    assert (attacked / f"{attack.__name__}_ran").exists()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attack_is_refused_and_runs_nothing(
    attack: Callable[[Members, str], Members], members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(attack(members, "ran"), tmp_path / "crafted.pt2")
    for screen in (screen_pt2, screened_pt2):
        with pytest.raises(UnsafeFileError) as caught:
            screen(path)
        assert ATTACKS[attack] in caught.value.message
        assert caught.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == ["crafted.pt2"]


def _set(*keys: object, value: object) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value

    return edit


GRAPH = ("graph_module", "graph")
NODE = (*GRAPH, "nodes", 0)
CALL = ("graph_module", "module_call_graph", 0, "signature")
LEAF = {"type": None, "context": None, "children_spec": []}
TREE = {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF]}
KEYWORDS = {"type": "builtins.dict", "context": "[\"x': run(), 'y\"]", "children_spec": [LEAF]}
POISON = "a = run()"
FURTHER = {
    "any function": (*NODE, "target", "torch.os.system"),
    "function of the operator module": (*NODE, "target", "_operator.attrgetter"),
    "operator of another library": (*NODE, "target", "torch.ops.inductor.resize_storage_bytes_.default"),
    "extension operator": (*NODE, "target", "#extension:operator"),
    "operator packet's attribute": (*NODE, "target", "torch.ops.aten.__getattr__.__call__"),
    "saving operator": (*NODE, "target", "torch.ops.aten.save.default"),
    "higher-order operator that calls a compiled library": (
        *NODE,
        "target",
        "torch.ops.higher_order.aoti_call_delegate",
    ),
    "node name": (*NODE, "name", POISON),
    "output name": (*NODE, "outputs", 0, {"as_tensor": {"name": POISON}}),
    "argument name": (*NODE, "inputs", 0, "name", POISON),
    "function as an argument": (*NODE, "inputs", 0, "arg", {"as_operator": "torch.hub.load"}),
    "key of a table argument": (*NODE, "inputs", 0, "arg", {"as_string_to_argument": {POISON: {"as_int": 1}}}),
    "custom object": (*NODE, "inputs", 0, "arg", {"as_custom_obj": {"name": "a", "class_fqn": "b"}}),
    "function looked up for a note": (*NODE, "metadata", {"source_fn_stack": "a,torch.nn.Module.__init__.__globals__"}),
    "custom object of the graph": (*GRAPH, "custom_obj_values", {"a": {"name": "a", "class_fqn": "b"}}),
    "truth value": (*GRAPH, "sym_bool_values", {"a": {"as_expr": {"expr_str": "run()", "hint": None}}}),
    "fraction": (*GRAPH, "sym_float_values", {"a": {"as_expr": {"expr_str": "run()", "hint": None}}}),
    "range": ("range_constraints", {"run()": {"min_val": 0, "max_val": 1}}),
    "module name": ("graph_module", "module_call_graph", 1, "fqn", 'a"b'),
    "keyword name": (*CALL, "in_spec", json.dumps([1, {**TREE, "children_spec": [TREE, KEYWORDS]}])),
    "registered class": (
        *CALL,
        "out_spec",
        json.dumps([1, {"type": "torch.nn.Linear", "context": "", "children_spec": []}]),
    ),
    "named tuple": (*CALL, "out_spec", json.dumps([1, {**TREE, "type": "collections.namedtuple"}])),
}


@pytest.mark.parametrize("place", FURTHER.values(), ids=FURTHER.keys())
def test_further_routes_are_refused(place: tuple[object, ...], members: Members, tmp_path: Path) -> None:
    *keys, value = place
    path = written(edited(members, PROGRAM, _set(*keys, value=value)), tmp_path / "crafted.pt2")
    with pytest.raises(UnsafeFileError, match=r"models/model\.json"):
        screen_pt2(path)


@pytest.mark.parametrize(
    "name",
    [
        "data/aotinductor/model/wrapper.so",
        "data/constants/custom_obj_0",
        "data/constants/model.pt",
        "data/executorch/model.pte",
        "models/other.json",
        "xl_model_weights/model_param_config",
        "code/model.py",
    ],
)
def test_other_members_are_refused(name: str, members: Members, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match=name):
        screen_pt2(written({**members, name: b"x"}, tmp_path / "crafted.pt2"))


def test_torchscript_among_sample_inputs_is_refused(members: Members, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(UnsafeFileError, match="TorchScript"):
        screen_pt2(written({**members, SAMPLES: buffer.getvalue()}, tmp_path / "crafted.pt2"))


FREE_TEXT = ("stack_trace", "nn_module_stack", "torch_fn", "torch_version", "opset_version", "as_string")
"""Keys of strings that torch only stores, or writes as quoted literals."""


def _strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Yields where the strings of parsed JSON are: the path, and whether the string is the last key itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        if isinstance(key, str):
            yield (*path, key), True
        if isinstance(child, str):
            yield (*path, key), False
        yield from _strings(child, (*path, key))


def _poisoned(program: bytes, path: tuple[Any, ...], is_key: bool, poison: str) -> bytes:
    table = json.loads(program)
    parent = table
    for key in path[:-1]:
        parent = parent[key]
    if is_key:
        parent[poison] = parent.pop(path[-1])
    else:
        parent[path[-1]] = poison
    return json.dumps(table).encode()


@pytest.fixture(scope="module")
def rich() -> Members:
    return saved(Rich(), torch.ones(5, 3), torch.ones(5, 3), "plain")


def test_every_string_of_a_program_is_refused_as_code_unless_it_is_free_text(rich: Members) -> None:
    check_program(rich[PROGRAM])
    places = list(_strings(json.loads(rich[PROGRAM])))
    passed = set()
    for path, is_key in places:
        if is_key and path[-1] in ("stack_trace", "nn_module_stack", "torch_fn"):
            continue
        try:
            check_program(_poisoned(rich[PROGRAM], path, is_key, "x\"'=run()"))
        except Refusal:
            continue
        passed.add(path)
    assert len(places) > 500
    assert {path for path in passed if not set(path) & set(FREE_TEXT)} == set()
    assert {path[-1] for path in passed} == {
        "stack_trace",
        "nn_module_stack",
        "torch_fn",
        "torch_version",
        "as_string",
        "aten",
    }


def test_free_text_runs_nothing_with_plain_torch(rich: Members, tmp_path: Path) -> None:
    """Poisons all of it at once, in the forms that would break out of quotes, comments and lines."""
    poison = f"""'\n"); {call("ran")}\n\"\"\"; {call("ran")} #"""
    program = json.loads(rich[PROGRAM])
    for path, is_key in _strings(program):
        if not is_key and path[-1] in ("stack_trace", "torch_fn", "torch_version"):
            _set(*path, value=poison)(program)
        elif not is_key and path[-1] == "nn_module_stack":
            _set(*path, value=f"a,b,{poison.replace(';', '').replace(',', '').replace('(', '').replace(')', '')}")(
                program
            )
    graph = program["graph_module"]["graph"]
    message = {"name": "assert_msg", "arg": {"as_string": poison}, "kind": 1}
    [condition] = [name for name, value in graph["sym_bool_values"].items() if "as_expr" in value]
    flag = {"name": "self", "arg": {"as_sym_bool": {"as_name": condition}}, "kind": 1}
    check = {
        "target": "torch.ops.aten._assert_scalar.default",
        "inputs": [flag, message],
        "outputs": [{"as_none": True}],
    }
    position = next(i for i, node in enumerate(graph["nodes"]) if "cond" in node["target"])
    graph["nodes"].insert(position, {**check, "metadata": {}})
    path = written({**rich, PROGRAM: json.dumps(program).encode()}, tmp_path / "poisoned.pt2")
    screen_pt2(path)
    script = (
        "import sys, torch; p = torch.export.load(sys.argv[1]); p.module()(*p.example_inputs[0]); str(p); print('done')"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(path)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert done.stdout.endswith(b"done\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["poisoned.pt2"]


def test_operators_of_torch_that_name_a_file_are_known() -> None:
    """A new operator that takes a file name would slip through a list of two; this finds it."""
    schemas = [schema for schema in torch._C._jit_get_all_schemas() if schema.name.startswith(("aten::", "prims::"))]
    words = ("file", "path", "name")
    naming = {
        schema.name.partition("::")[2]
        for schema in schemas
        for argument in schema.arguments
        if "str" in str(argument.type) and any(word in argument.name for word in words)
    }
    assert naming == {"save", "from_file", "_linalg_check_errors"}  # the last one takes the name of a function


def test_element_sizes_are_those_of_torch() -> None:
    sizes = {
        int(kind): dtype.itemsize for kind, dtype in torch._export.serde.serialize._SERIALIZE_TO_TORCH_DTYPE.items()
    }
    assert sizes == ELEMENT_BYTES


def test_screen_needs_the_standard_library_only() -> None:
    folder = Path(compress.model.screen.__file__).parent
    imported = {
        name
        for path in folder.glob("screen*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not name.startswith("compress.model.screen")} == {
        "compress.errors",
        "compress.model",
    }
    assert not imported & {"pickle", "marshal", "importlib", "subprocess"}
