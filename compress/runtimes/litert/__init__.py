"""LiteRT: conversion to `.tflite`, float16 storage, int8 through its quantizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.runtimes.litert.interpreter import LITERT

if TYPE_CHECKING:  # a file can be inspected without torch
    from compress.calibrate import Ranges
    from compress.model.core import Model
    from compress.recipe import QuantScheme
    from compress.runtimes.base import Lowered
    from compress.target import Target

__all__ = ["LiteRt"]


class LiteRt:
    """The lowering for LiteRT. The file takes one row at a time: what a phone scores.

    `interpreter` is what runs it; other interpreters of the same files are subclasses.
    """

    name = "litert"
    schemes = frozenset(
        {
            ("float16", "none"),
            ("int8", "static"),
            ("int8", "dynamic"),
            ("int8", "none"),
            ("int4", "none"),
            ("int4", "dynamic"),
        }
    )
    interpreter = LITERT

    def lower(self, model: Model) -> Lowered:
        """Returns the float32 `.tflite` file, batch 1, with a signature of real names."""
        from compress.runtimes.litert.export import export

        lowered = export(model)
        self.interpreter.check(lowered.data)
        return lowered

    def quantize(self, lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
        """Returns the file with the scheme realised."""
        from compress.runtimes.litert.quantize import quantize

        made = quantize(lowered, scheme, ranges, self.interpreter)
        self.interpreter.check(made.data)
        return made
