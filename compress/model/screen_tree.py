"""Trees of containers: how a model takes its inputs and returns its outputs.

torch keeps them as JSON in a string. For an enum or a `defaultdict` it imports the module that the string names, for
other types it looks a class up; only tuples, lists and dicts are taken.
"""

from __future__ import annotations

from compress.model import screen_schema as s
from compress.model.screen_names import WRAP, label, name
from compress.model.screen_refusal import Refusal, damaged, shown

_SEQUENCES = {"builtins.tuple", "builtins.list", "torch.fx.immutable_collections.immutable_list", "torch.Size"}
_MAPPINGS = {"builtins.dict", "collections.OrderedDict", "torch.fx.immutable_collections.immutable_dict"}


def tree(value: object) -> None:
    """Checks a tree of tuples, lists and dicts.

    Raises:
        Refusal: It names another type, or is no such tree.
    """
    _node(_root(value))


def input_tree(value: object) -> None:
    """Checks the tree of a model's inputs, `(args, kwargs)`; the keywords become variables of generated source."""
    root = _root(value)
    _node(root)
    children = root["children_spec"] if isinstance(root, dict) else []
    if len(children) == 2 and children[1]["type"] in _MAPPINGS:
        for key in _keys(children[1]):
            name(key)


def _root(value: object) -> object:
    parsed = s.parse_json(value) if isinstance(value, str) else None
    if not isinstance(parsed, list) or len(parsed) != 2 or parsed[0] != 1:
        raise damaged(f"{shown(value)} is not a tree of containers.")
    return parsed[1]


def _node(node: object) -> None:
    if not isinstance(node, dict) or node.keys() != {"type", "context", "children_spec"}:
        raise damaged(f"{shown(node)} is not a node of a tree of containers.")
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if not isinstance(children, list) or not isinstance(kind, str | None):
        raise damaged(f"{shown(node)} is not a node of a tree of containers.")
    if kind in _MAPPINGS:
        keys = _keys(node)
        if len(keys) != len(children):
            raise damaged(f"{len(keys)} keys for {len(children)} values.")
    elif kind in _SEQUENCES:
        if context != "null":
            raise Refusal(f"the {kind} carries {shown(context)}, which no plain container does.", WRAP)
    elif kind is not None:
        raise Refusal(f"the container type {shown(kind)} makes torch look up or import a class by name.", WRAP)
    elif context is not None or children:
        raise damaged(f"{shown(node)} is not a leaf.")
    for child in children:
        _node(child)


def _keys(node: dict[str, object]) -> list[object]:
    """Returns a mapping's keys. They are JSON again, in which torch imports what an enum names."""
    context = node["context"]
    keys = s.parse_json(context) if isinstance(context, str) else None
    if not isinstance(keys, list):
        raise damaged(f"{shown(context)} is not a list of keys.")
    for key in keys:
        if type(key) is not int and not label(key):
            raise Refusal(f"the key {shown(key)} is neither a plain name nor a number.", WRAP)
    return keys
