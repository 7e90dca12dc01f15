"""The graph of an exported program as JSON: every value of torch's schema, checked before torch turns it into code.

torch writes Python source from the graph and executes it, with names and keys pasted in unquoted, and resolves
operators and tree types by name. So a string is only let through where its place is known and its form is harmless.
Source: torch/_export/serde/schema.py, schema version 8.
"""

from __future__ import annotations

from compress.model import screen_schema as s
from compress.model.screen_expression import check_guard, check_symbolic
from compress.model.screen_names import (
    argument_name,
    constant_string,
    device,
    metadata,
    module_name,
    name,
    operator,
    qualified_name,
)
from compress.model.screen_refusal import damaged, shown
from compress.model.screen_schema import Check, list_of, optional, record, table_of, union
from compress.model.screen_tree import input_tree, tree

SCHEMA_MAJOR = 8
_TYPES_BY_BYTES = {1: (1, 2, 12, *range(29, 34)), 2: (3, 6, 13, 28), 4: (4, 7, 9, 34), 8: (5, 8, 10, 35), 16: (11,)}
ELEMENT_BYTES = {kind: size_bytes for size_bytes, kinds in _TYPES_BY_BYTES.items() for kind in kinds}
"""Bytes of one element by the schema's number of its type; a type that is missing here cannot be loaded."""

_NO_OBJECTS = s.refused("a custom object is a pickle that runs code when it is loaded.", "export the model without it.")


def check_program(data: bytes) -> None:
    """Checks the content of `models/model.json`.

    Raises:
        Refusal: It holds what would run as code, or is not a program of this schema.
    """
    program = s.parse_json(data)
    version = program.get("schema_version") if isinstance(program, dict) else None
    major = version.get("major") if isinstance(version, dict) else None
    if major != SCHEMA_MAJOR:
        raise damaged(f"its schema version is {shown(major)}; this reads {SCHEMA_MAJOR}.").under("schema_version")
    _PROGRAM(program)


def _graph(value: object) -> None:
    _GRAPH(value)


def _argument(value: object) -> None:
    _ARGUMENT(value)


def _symbolic(kind: str, plain: Check) -> Check:
    hint = union({"as_int": s.integer, "as_bool": s.boolean, "as_float": s.number})
    expression = record({"expr_str": check_symbolic, "hint": optional(hint)}, optional=["hint"])
    return union({"as_expr": expression, kind: plain})


def _named(kind: str, plain: Check) -> Check:
    return union({"as_name": name, kind: plain})


_SYM_INT = _symbolic("as_int", s.integer)
_DEVICE_RECORD = record({"type": device, "index": optional(s.integer)}, optional=["index"])
_DTYPE = s.one_of(ELEMENT_BYTES, "number of an element type")
TENSOR_META = record(
    {
        "dtype": _DTYPE,
        "sizes": list_of(_SYM_INT),
        "requires_grad": s.boolean,
        "device": _DEVICE_RECORD,
        "strides": list_of(_SYM_INT),
        "storage_offset": _SYM_INT,
        "layout": s.one_of(range(1, 8), "layout"),
    }
)
"""The check of a tensor's description."""
_TENSOR = record({"name": name})
_OPTIONAL_TENSOR = union({"as_tensor": _TENSOR, "as_none": s.boolean})
_SYM_INT_ARGUMENT = _named("as_int", s.integer)
_SYM_FLOAT_ARGUMENT = _named("as_float", s.number)
_SYM_BOOL_ARGUMENT = _named("as_bool", s.boolean)
_ARGUMENT_FIELDS: dict[str, Check] = {
    "as_none": s.boolean,
    "as_tensor": _TENSOR,
    "as_tensors": list_of(_TENSOR),
    "as_nested_tensors": list_of(list_of(_TENSOR)),
    "as_optional_tensor": _OPTIONAL_TENSOR,
    "as_optional_tensors": list_of(_OPTIONAL_TENSOR),
    "as_int": s.integer,
    "as_ints": list_of(s.integer),
    "as_int_lists": list_of(list_of(s.integer)),
    "as_float": s.number,
    "as_floats": list_of(s.number),
    "as_float_lists": list_of(list_of(s.number)),
    "as_complex": record({"real": s.number, "imag": s.number}),
    "as_bool": s.boolean,
    "as_bools": list_of(s.boolean),
    "as_string": s.text,
    "as_strings": list_of(s.text),
    "as_sym_int": _SYM_INT_ARGUMENT,
    "as_sym_ints": list_of(_SYM_INT_ARGUMENT),
    "as_sym_float": _SYM_FLOAT_ARGUMENT,
    "as_sym_floats": list_of(_SYM_FLOAT_ARGUMENT),
    "as_sym_bool": _SYM_BOOL_ARGUMENT,
    "as_sym_bools": list_of(_SYM_BOOL_ARGUMENT),
    "as_scalar_type": _DTYPE,
    "as_memory_format": s.one_of(range(1, 5), "memory format"),
    "as_layout": s.one_of(range(1, 8), "layout"),
    "as_device": _DEVICE_RECORD,
    "as_graph": record({"name": name, "graph": _graph}),
    "as_operator": operator,
    "as_string_to_argument": table_of(name, _argument),
    "as_custom_obj": _NO_OBJECTS,
}
_ARGUMENT = union(_ARGUMENT_FIELDS)
_INPUT = union({**_ARGUMENT_FIELDS, "as_string": constant_string})
_NODE = record(
    {
        "target": operator,
        "inputs": list_of(
            record(
                {"name": argument_name, "arg": _ARGUMENT, "kind": optional(s.one_of(range(3), "kind of argument"))},
                optional=["kind"],
            )
        ),
        "outputs": list_of(_ARGUMENT),
        "metadata": metadata,
        "is_hop_single_tensor_return": optional(s.boolean),
        "name": optional(name),
    },
    optional=["is_hop_single_tensor_return", "name"],
)
_GRAPH = record(
    {
        "inputs": list_of(_INPUT),
        "outputs": list_of(_ARGUMENT),
        "nodes": list_of(_NODE),
        "tensor_values": table_of(name, TENSOR_META),
        "sym_int_values": table_of(name, _SYM_INT),
        "sym_bool_values": table_of(name, _symbolic("as_bool", s.boolean)),
        "sym_float_values": table_of(name, _symbolic("as_float", s.number)),
        "custom_obj_values": table_of(name, _NO_OBJECTS),
        "is_single_tensor_return": s.boolean,
    },
    optional=["sym_float_values", "custom_obj_values", "is_single_tensor_return"],
)
_CONSTANT = union(
    {
        "as_none": s.boolean,
        "as_int": s.integer,
        "as_float": s.number,
        "as_string": constant_string,
        "as_bool": s.boolean,
    }
)
_INPUT_SPEC = union(
    {
        "user_input": record({"arg": _INPUT}),
        "parameter": record({"arg": _TENSOR, "parameter_name": qualified_name}),
        "buffer": record({"arg": _TENSOR, "buffer_name": qualified_name, "persistent": s.boolean}),
        "tensor_constant": record({"arg": _TENSOR, "tensor_constant_name": qualified_name}),
        "custom_obj": _NO_OBJECTS,
        "token": record({"arg": _TENSOR}),
        "constant_input": record({"name": name, "value": _CONSTANT}),
    }
)
_OUTPUT_SPEC = union(
    {
        "user_output": record({"arg": _ARGUMENT}),
        "loss_output": record({"arg": _TENSOR}),
        "buffer_mutation": record({"arg": _TENSOR, "buffer_name": qualified_name}),
        "parameter_mutation": record({"arg": _TENSOR, "parameter_name": qualified_name}),
        "gradient_to_parameter": record({"arg": _TENSOR, "parameter_name": qualified_name}),
        "gradient_to_user_input": record({"arg": _TENSOR, "user_input_name": name}),
        "user_input_mutation": record({"arg": _TENSOR, "user_input_name": name}),
        "token": record({"arg": _TENSOR}),
    }
)
_CALL_SIGNATURE = record(
    {
        "inputs": list_of(_ARGUMENT),
        "outputs": list_of(_ARGUMENT),
        "in_spec": input_tree,
        "out_spec": tree,
        "forward_arg_names": optional(list_of(name)),
    },
    optional=["forward_arg_names"],
)
_MODULE_CALL = record({"fqn": module_name, "signature": optional(_CALL_SIGNATURE)})
_PROGRAM = record(
    {
        "graph_module": record(
            {
                "graph": _GRAPH,
                "signature": record({"input_specs": list_of(_INPUT_SPEC), "output_specs": list_of(_OUTPUT_SPEC)}),
                "module_call_graph": list_of(_MODULE_CALL),
                "metadata": metadata,
                "treespec_namedtuple_fields": table_of(s.text, record({"field_names": list_of(name)})),
            },
            optional=["metadata", "treespec_namedtuple_fields"],
        ),
        "opset_version": table_of(s.text, s.integer),
        "range_constraints": table_of(
            check_symbolic, record({"min_val": optional(s.integer), "max_val": optional(s.integer)})
        ),
        "schema_version": record({"major": s.integer, "minor": s.integer}),
        "verifiers": list_of(s.one_of(("", "ATEN", "TRAINING"), "verifier")),
        "torch_version": s.text,
        "guards_code": list_of(check_guard),
    },
    optional=["verifiers", "torch_version", "guards_code"],
)
