"""The grammars of symbolic sizes, guards, names, operators and trees of containers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.model.screen_expression import check_guard, check_symbolic
from compress.model.screen_names import constant_string, name, operator, qualified_name
from compress.model.screen_refusal import Refusal
from compress.model.screen_schema import parse_json
from compress.model.screen_tree import input_tree, tree

S1 = "Symbol('s1', positive=True, integer=True)"


@pytest.mark.parametrize(
    "text",
    [
        S1,
        f"Mul(Integer(2), {S1}, Symbol('s9', integer=True))",
        f"Add(FloorDiv(Mul(Integer(2), {S1}), Integer(3)), Mod({S1}, Integer(5)))",
        f"Min(Integer(8), Max(Mul(Integer(16), {S1}), Integer(-1)))",
        f"Pow({S1}, Integer(2))",
        f"Mul(Pow({S1}, Integer(-1)), Float('0.5', precision=53), Rational(1, 2))",
        f"StrictLessThan({S1}, Integer(100))",
        f"And(GreaterThan({S1}, Integer(0)), Not(Equality({S1}, Integer(3))))",
        f"ToFloat({S1})",
        "2*s9",
        "s0 + 1",
        "u0",
        "(s1*s2)//3",
        "-oo",
        "1.5e3",
    ],
)
def test_what_torch_writes_for_sizes_passes(text: str) -> None:
    check_symbolic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "s0.__class__",
        "exec('1')",
        "Symbol('__import__')",
        "Symbol('s0; import os')",
        "Symbol(exec)",
        "Integer('1')",
        "Float('run')",
        "Symbol('s0', integer=run())",
        "Symbol(*s0)",
        "Add(**s0)",
        "[s0][0]",
        "(lambda: s0)()",
        "s0 if s1 else s2",
        "s0 := 1",
        "f'{s0}'",
        "'text'",
        "Symbol",
        "test()",
        "S",
        "s0\n+ 1",
        "s0; s1",
        "s0 s1",
        "",
        "x",
        "\uff33ymbol('s0')",
        "9**9**9",
        "Pow(Pow(s0, Integer(2)), Integer(2))",
        "Pow(Integer(10), Integer(1000000000))",
        "LShift(Integer(1), Integer(99999999))",
        "PowByNatural(Integer(2), Mul(Integer(64), Integer(64)))",
        f"Integer({10**30})",
        "Mod(" * 60 + "s0" + ", Integer(2))" * 60,
        "(" * 300 + "s0" + ")" * 300,
        "-" * 3000 + "1",
        "s0 + " * 2000 + "s0",
    ],
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(Refusal):
        check_symbolic(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['mask'].size()[0] == L['opts']['a'].size()[0]",
        "L['flat_args'][0].size()[1] // 2 <= 8*L['flat_args'][1].size()[0]",
        "(30*L['x'].size()[2]) != (30*max(1, L['x'].size()[2] // 2))",
        "math.trunc(1.5*torch.sym_float(L['x'].size()[2])) == 48",
        "L['x'].stride()[0] > 1 and not L['x'].storage_offset() == 0",
        "L['größe'].size()[0] == 3",
        "L['x'] < math.inf",
    ],
)
def test_what_torch_writes_for_guards_passes(text: str) -> None:
    check_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "L['x'].tofile('a')",
        "L['x'].size().__class__",
        "L['x'].size()[0].real == 1",
        "torch.load('a')",
        "math.fsum([1])",
        "L.__class__",
        "L",
        "L['a\"b']",
        'L["x"] == 1',
        "L['x'][run()] == 1",
        "max(*L['x'])",
        "max(1, key=run)",
        "1 in L['x']",
        "[a for a in L['x']]",
        "True, 1",
        "1)\n  run(",
        "2**99999999999 > 1",
    ],
)
def test_other_guards_are_refused(text: str) -> None:
    with pytest.raises(Refusal):
        check_guard(text)


@given(st.text(alphabet="sLu09()[]'.,*+-/ =<>_abcdefimportx", max_size=40))
@settings(max_examples=200, deadline=None)
def test_expressions_pass_or_are_refused_and_nothing_else(text: str) -> None:
    for check in (check_symbolic, check_guard):
        try:
            check(text)
        except Refusal:
            continue
        for forbidden in ("__", "import", "exec", "lambda", "\n"):
            assert forbidden not in text.replace("'", " ").split()


@pytest.mark.parametrize("value", ["x", "args_0", "_x", "größe"])
def test_names_pass(value: str) -> None:
    name(value)


@pytest.mark.parametrize("value", ["", "x=1", "x y", "x.y", "1x", "x:int", "*x", "x\n", "x#", "a" * 600, None, 3])
def test_names_that_are_code_are_refused(value: object) -> None:
    with pytest.raises(Refusal):
        name(value)


@pytest.mark.parametrize(
    "value", ["l.weight", "layers.0.fc-1.w", "parametrizations.w.original0", "kopf.größe", "a:b/c"]
)
def test_qualified_names_pass(value: str) -> None:
    qualified_name(value)


@pytest.mark.parametrize("value", ["", "a..b", 'a"b', "a'b", "a\\b", "a(b", "a\nb", "__class__.x", "x.__dict__", None])
def test_qualified_names_that_are_code_are_refused(value: object) -> None:
    with pytest.raises(Refusal):
        qualified_name(value)


@pytest.mark.parametrize(
    "value",
    [
        "torch.ops.aten.linear.default",
        "torch.ops.aten.__and__.Tensor",
        "torch.ops.aten._native_batch_norm_legit_no_training.default",
        "torch.ops.quantized_decomposed.quantize_per_tensor.default",
        "torch.ops.higher_order.cond",
        "_operator.floordiv",
        "torch.sym_max",
        "math.trunc",
    ],
)
def test_operators_of_models_pass(value: str) -> None:
    operator(value)


@pytest.mark.parametrize(
    "value",
    [
        "torch.load",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.linear",
        "torch.ops.aten.linear.default.__call__",
        "torch.ops.aten.linear.__class__",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.from_file.out",
        "torch.ops.c10d.send.default",
        "torch.ops.higher_order.inline_asm_elementwise",
        "_operator.methodcaller",
        "math",
        "builtins.eval",
        "",
        None,
    ],
)
def test_other_operators_are_refused(value: object) -> None:
    with pytest.raises(Refusal):
        operator(value)


def test_constant_strings() -> None:
    constant_string("mean pooling, 2 layers")
    for value in ("it's", 'a"b', "a\\b", "a\nb", "a\u2028b", 3):
        with pytest.raises(Refusal):
            constant_string(value)


def _tree(kind: str | None, context: object, *children: object) -> dict[str, object]:
    return {"type": kind, "context": context, "children_spec": list(children)}


LEAF = _tree(None, None)
ARGUMENTS = _tree("builtins.tuple", "null", LEAF)


def test_plain_trees_pass() -> None:
    nested = _tree("builtins.dict", '["score", "class probabilities", 3]', LEAF, ARGUMENTS, LEAF)
    tree(json.dumps([1, nested]))
    tree(json.dumps([1, LEAF]))
    input_tree(json.dumps([1, _tree("builtins.tuple", "null", ARGUMENTS, _tree("builtins.dict", '["mask"]', LEAF))]))


@pytest.mark.parametrize(
    "node",
    [
        _tree(
            "collections.defaultdict", {"default_factory_module": "os", "default_factory_name": "a", "dict_context": []}
        ),
        _tree("builtins.dict", '[{"__enum__": true, "fqn": "os:a", "name": "b"}]', LEAF),
        _tree("builtins.list", '{"__enum__": true, "fqn": "os:a", "name": "b"}'),
        _tree("torch.nn.Module", "null"),
        _tree("builtins.dict", '["a", "b"]', LEAF),
        _tree("builtins.dict", '["it\'s"]', LEAF),
        _tree("builtins.dict", None, LEAF),
        _tree(None, "null"),
        _tree(None, None, LEAF),
        _tree("builtins.tuple", "null", 3),
        {"type": "builtins.tuple"},
        3,
    ],
)
def test_other_trees_are_refused(node: object) -> None:
    for check in (tree, input_tree):
        with pytest.raises(Refusal):
            check(json.dumps([1, node]))


def test_keyword_names_must_be_names() -> None:
    keywords = _tree("builtins.dict", '["x y"]', LEAF)
    text = json.dumps([1, _tree("builtins.tuple", "null", ARGUMENTS, keywords)])
    tree(text)
    with pytest.raises(Refusal):
        input_tree(text)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b"[" * 200 + b"]" * 200, b"", b"\xff", b"{", b"1" * 5000, b'"\\ud800']
)
def test_json_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal):
        parse_json(data)
