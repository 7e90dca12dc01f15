"""Names inside an exported program: what becomes a variable, an attribute or a function of generated source."""

from __future__ import annotations

import re

from compress.model import screen_schema as s
from compress.model.screen_refusal import Refusal, damaged, shown

WRAP = (
    "wrap the model so that it takes and returns tensors in tuples, lists or dicts with plain names, and export again."
)
_MAX_NAME_CHARACTERS = 512
_QUALIFIED = re.compile(r"(?!__)[\w\-:/@+ ]{1,512}(?:\.(?!__)[\w\-:/@+ ]{1,512})*")
_DEVICE = re.compile(r"[a-z]{2,16}")
_LABEL = re.compile(r"[^'\"\\\x00-\x1f\x7f-\x9f\u2028\u2029]{0,512}")
_TENSOR_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims|torchvision|quantized_decomposed)\.(\w+)\.[A-Za-z]\w*", re.ASCII
)
_SOURCES = re.compile(r"(?!.*__)\w+,[\w.]+(?:;\w+,[\w.]+)*", re.ASCII)
_TEXTS = s.table_of(s.text, s.text)
_HIGHER_ORDER = ("cond", "map_impl", "while_loop", "scan", "associative_scan")
_PLAIN_OPERATORS = {
    *(
        f"torch.ops.higher_order.{name}"
        for name in (*_HIGHER_ORDER, "wrap_with_set_grad_enabled", "wrap_with_autocast")
    ),
    *(f"torch.{name}" for name in ("sym_not", "sym_int", "sym_float", "sym_ite", "sym_max", "sym_min", "sym_sqrt")),
    *("torch._sym_sqrt", "torch.sym_sum", "math.trunc", "math.ceil", "math.floor", "math.sqrt"),
    *(f"_operator.{name}" for name in ("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "mul", "add", "sub")),
    *(f"_operator.{name}" for name in ("floordiv", "mod", "pow", "truediv", "and_", "or_", "lshift", "rshift")),
    *("_operator.getitem", "_operator.not_", "_operator.abs"),
}
_MAGIC_OPERATORS = {f"__{i}{name}__" for name in ("and", "or", "xor", "lshift", "rshift") for i in ("", "i")}
_FILE_OPERATORS = {"save", "from_file"}


def name(value: object) -> None:
    """Checks a name that becomes a variable of generated source."""
    if not isinstance(value, str) or not value.isidentifier() or len(value) > _MAX_NAME_CHARACTERS:
        raise Refusal(f"the name {shown(value)} would run as code: torch pastes names into source that it executes.")


def qualified_name(value: object) -> None:
    """Checks a parameter's or module's dotted name; it ends up in generated source, partly in quotes."""
    if not isinstance(value, str) or not _QUALIFIED.fullmatch(value):
        raise Refusal(
            f"the name {shown(value)} could run as code: torch pastes names into source that it executes.",
            "rename the module or parameter to letters, digits, '_', '-' and '.', and export again.",
        )


def operator(value: object) -> None:
    """Checks a function by name: torch would resolve any function below `torch`, `math` and `operator`."""
    if not isinstance(value, str):
        raise damaged(f"{shown(value)} is not an operator.")
    if value in _PLAIN_OPERATORS:
        return
    match = _TENSOR_OPERATOR.fullmatch(value)
    if match is None or (match[1].startswith("__") and match[1] not in _MAGIC_OPERATORS):
        raise Refusal(
            f"the operator {shown(value)} is no tensor operator that a model may use; it could be any function.",
            "export the model without it; custom operators are not taken from a file.",
        )
    if match[1] in _FILE_OPERATORS:
        raise Refusal(f"the operator {shown(value)} reads or writes files when the model runs.")


def device(value: object) -> None:
    """Checks the kind of a device, such as `cpu`."""
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise damaged(f"{shown(value)} is not a device.")


def label(value: object) -> bool:
    """Returns whether a value is a string that stays a string when it is pasted between quotes."""
    return isinstance(value, str) and _LABEL.fullmatch(value) is not None


def constant_string(value: object) -> None:
    """Checks a constant input, which torch pastes in quotes into the source of a guard."""
    if not label(value):
        raise Refusal(f"the constant {shown(value)} would run as code: torch pastes it into source, in quotes.", WRAP)


def argument_name(value: object) -> None:
    """Checks the name of an operator's argument; higher-order operators leave it empty."""
    if value != "":
        name(value)


def module_name(value: object) -> None:
    """Checks a module's dotted name; the root has none."""
    if value != "":
        qualified_name(value)


def metadata(value: object) -> None:
    """Checks what torch notes about a node: text that nothing evaluates, JSON, and functions looked up by name."""
    _TEXTS(value)
    if not isinstance(value, dict):
        return
    for key, content in value.items():
        if key in ("custom", "from_node"):
            s.parse_json(content)
        if key == "source_fn_stack" and content and not _SOURCES.fullmatch(content):
            raise Refusal(f"torch would look up {shown(content)} by name.").under(key)
