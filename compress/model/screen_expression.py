"""The small languages inside an exported program that torch hands to `eval`: symbolic sizes and guards.

Sizes such as `Mul(Integer(2), Symbol('s9', positive=True, integer=True))` go through `sympy.sympify`, guards such as
`L['x'].size()[0] == L['y'].size()[0]` into the source of a function. Both are parsed here with `ast`, never evaluated,
and every node must be on a list of what torch itself writes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from compress.model.screen_refusal import Refusal, damaged, shown

MAX_EXPRESSION_CHARACTERS = 4096
MAX_EXPRESSION_DEPTH = 40
MAX_EXPONENT = 64
MAX_INTEGER = 1 << 64

_SYMBOLIC_TEXT = re.compile(r"[A-Za-z0-9_ ,.()'=+\-*/%<>]*")
_GUARD_TEXT = re.compile(r"[\w ,.()\[\]'=+\-*/%<>!]*")
_SYMBOL = re.compile(r"(?:s|u|zf|zuf)\d{1,6}")
_FLOAT = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40})?(?:e[+-]?\d{1,3})?")
_KEY = re.compile(r"[\w.\- ]{1,256}")
_ASSUMPTIONS = {"integer", "positive", "nonnegative", "real", "finite", "nonzero", "commutative"}
# sympy's printer `srepr` writes the first rows; the others are what torch's own reader of these strings knows.
_FUNCTIONS = {
    *("Add", "Mul", "Integer", "Rational", "Float", "Symbol", "Pow", "Max", "Min", "Abs", "floor", "ceiling"),
    *("Equality", "Unequality", "LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan"),
    *("Eq", "Ne", "Le", "Ge", "Lt", "Gt", "And", "Or", "Not", "Piecewise", "ExprCondPair"),
    *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv"),
    *("LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt"),
    *("RoundToInt", "RoundDecimal", "ToFloat", "Identity", "IsNonOverlappingAndDenseIndicator"),
}
_GROWING = {"Pow", "PowByNatural", "FloatPow", "LShift", "RShift"}
_CONSTANTS = {"true", "false", "oo"}
_GUARD_FUNCTIONS = {
    *("max", "min", "int", "float", "abs", "round", "torch.sym_float", "torch.sym_int", "torch._sym_sqrt"),
    *(f"math.{name}" for name in ("trunc", "ceil", "floor", "sqrt", "cos", "sin", "tan", "tanh", "log2")),
}
_GUARD_CONSTANTS = {"math.inf", "math.nan"}
_GUARD_METHODS = {"size", "stride", "storage_offset"}
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def check_symbolic(text: object) -> None:
    """Checks a symbolic size, truth value or number, or the key of a range constraint.

    Raises:
        Refusal: It is not of the grammar, or so nested or large that evaluating it would not end.
    """
    _check(text, "symbolic expression", _SYMBOLIC_TEXT, _symbolic_atom)


def check_guard(text: object) -> None:
    """Checks a condition on the inputs' sizes, which torch pastes into the source of a function.

    Raises:
        Refusal: It is not of the grammar.
    """
    _check(text, "guard", _GUARD_TEXT, _guard_atom)


# A handler looks at one node. It returns the nodes below that are still to be looked at, or None for "not mine".
_Handler = Callable[[ast.expr], list[ast.expr] | None]


def _check(text: object, name: str, characters: re.Pattern[str], atom: _Handler) -> None:
    if not isinstance(text, str):
        raise damaged(f"{shown(text)} is not a {name}.")
    if len(text) > MAX_EXPRESSION_CHARACTERS or not characters.fullmatch(text):
        raise Refusal(f"the {name} {shown(text)} is too long or holds characters that torch does not write there.")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refusal(f"the {name} {shown(text)} is not an expression.") from error
    pending = [(tree, 0, 0)]
    while pending:
        node, depth, growth = pending.pop()
        below = _operation(node)
        below = atom(node) if below is None else below
        if below is None:
            raise Refusal(f"the {name} {shown(text)} holds {shown(ast.unparse(node), 60)}, which would run as code.")
        growth += _grows(node)
        if depth > MAX_EXPRESSION_DEPTH or growth > 1:
            raise Refusal(f"the {name} {shown(text)} is nested too deeply, or raises powers to powers.")
        pending += [(child, depth + 1, growth) for child in below]


def _operation(node: ast.expr) -> list[ast.expr] | None:
    """Arithmetic, comparisons and logic, the same in both languages."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, _ARITHMETIC):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not):
        return [node.operand]
    if isinstance(node, ast.Compare) and all(isinstance(op, _COMPARISONS) for op in node.ops):
        return [node.left, *node.comparators]
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float) and abs(node.value) <= MAX_INTEGER:
        return []
    return None


def _symbolic_atom(node: ast.expr) -> list[ast.expr] | None:
    if isinstance(node, ast.Name):
        return [] if node.id in _CONSTANTS or _SYMBOL.fullmatch(node.id) else None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
        return None
    if node.func.id in ("Symbol", "Float"):
        form, keys = (_SYMBOL, _ASSUMPTIONS) if node.func.id == "Symbol" else (_FLOAT, {"precision"})
        named = len(node.args) == 1 and _string(node.args[0], form)
        return [] if named and all(_plain_keyword(keyword, keys) for keyword in node.keywords) else None
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        return None
    return list(node.args)


def _guard_atom(node: ast.expr) -> list[ast.expr] | None:
    """`L['x']['key'].size()[0]` and its like, and the numeric functions that torch writes around it."""
    if _input_size(node):
        return []
    if isinstance(node, ast.IfExp):
        return [node.test, node.body, node.orelse]
    if _dotted(node) in _GUARD_CONSTANTS:
        return []
    if not isinstance(node, ast.Call) or node.keywords or _dotted(node.func) not in _GUARD_FUNCTIONS:
        return None
    return None if any(isinstance(argument, ast.Starred) for argument in node.args) else list(node.args)


def _dotted(node: ast.expr) -> str:
    """Returns `name` or `module.name`, or nothing for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _input_size(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript) and _index(node.slice):
        node = node.value
    if isinstance(node, ast.Call) and not node.args and not node.keywords:
        function = node.func
        return isinstance(function, ast.Attribute) and function.attr in _GUARD_METHODS and _input(function.value)
    return _input(node)


def _input(node: ast.expr) -> bool:
    depth = 0
    while isinstance(node, ast.Subscript) and (_index(node.slice) or _string(node.slice, _KEY)):
        node, depth = node.value, depth + 1
    return isinstance(node, ast.Name) and node.id == "L" and depth > 0


def _index(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _string(node: ast.expr, form: re.Pattern[str]) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and form.fullmatch(node.value) is not None


def _plain_keyword(keyword: ast.keyword, known: set[str]) -> bool:
    value = keyword.value
    small = isinstance(value, ast.Constant) and isinstance(value.value, bool | int) and abs(value.value) <= MAX_EXPONENT
    return keyword.arg in known and small


def _grows(node: ast.expr) -> int:
    """Returns 1 for a power or shift. Its second operand must be a small number or a symbol, or it would not end."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        exponent: ast.expr | None = node.right
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _GROWING:
        exponent = node.args[1] if len(node.args) == 2 else None
    else:
        return 0
    if exponent is None or not _small(exponent):
        raise Refusal(f"{shown(ast.unparse(node))} raises to a power that is not a number of at most {MAX_EXPONENT}.")
    return 1


def _small(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Symbol":
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Integer", "Rational"):
        return bool(node.args) and all(_small(argument) for argument in node.args)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _small(node.operand)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and abs(node.value) <= MAX_EXPONENT
