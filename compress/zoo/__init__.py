"""Reference models to start from, in plain torch; weights come from local files.

A recipe names one as `source = "compress.zoo:mobilenet_v2"`, its keyword arguments as `[model.arguments]`.
Importing this package imports no torch; asking for a member does.
"""

from __future__ import annotations

from typing import Any

from compress import registry

_MEMBERS = {
    "mobilenet_v2": "compress.zoo.mobilenet:mobilenet_v2",
    "mobilenet_v3_large": "compress.zoo.mobilenet:mobilenet_v3_large",
    "mobilenet_v3_small": "compress.zoo.mobilenet:mobilenet_v3_small",
    "efficientnet_b0": "compress.zoo.efficientnet:efficientnet_b0",
    "ft_transformer": "compress.zoo.tabular:ft_transformer",
    "transaction_transformer": "compress.zoo.sequence:transaction_transformer",
    "lstm_baseline": "compress.zoo.sequence:lstm_baseline",
    "compact_bert": "compress.zoo.text:compact_bert",
    "multitask_mlp": "compress.zoo.multitask:multitask_mlp",
    "multitask_transformer": "compress.zoo.multitask:multitask_transformer",
}

ZOO = registry.Registry("zoo model", "edge_compress.zoo", _MEMBERS)

__all__ = ["ZOO"]


def __getattr__(name: str) -> Any:
    """Returns a member's factory, imported when first asked for."""
    if name not in _MEMBERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; members: {', '.join(sorted(_MEMBERS))}")
    return ZOO.load(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MEMBERS})
