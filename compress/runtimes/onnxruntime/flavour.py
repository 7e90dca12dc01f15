"""Which form of quantized graph an engine that reads ONNX takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compress.target import Target


@dataclass(frozen=True)
class Flavour:
    """How activations are rounded, and where.

    Attributes:
        kind: ONNX Runtime's name of the type of activations.
        activations: The same for a reader.
        rounds_outputs: Whether what leaves a convolution is rounded, too, so that a chain stays in integers.
        dedicated: Whether every reader of a value has a rounding of its own.
        options: For the quantizer.
    """

    kind: str
    activations: str
    rounds_outputs: bool = True
    dedicated: bool = False
    options: Mapping[str, bool] = field(default_factory=dict)


FLAVOURS: dict[str, Flavour] = {
    # uint8 x int8 is what x86 multiplies; int8 activations are much slower there.
    "cpu": Flavour("QUInt8", "uint8", options={"ActivationSymmetric": False}),
    # TensorRT takes symmetric int8, refuses a DequantizeLinear of a 32-bit bias, and fuses a pair with what reads it.
    "tensorrt": Flavour(
        "QInt8",
        "int8, symmetric",
        rounds_outputs=False,
        dedicated=True,
        options={"ActivationSymmetric": True, "QuantizeBias": False, "DedicatedQDQPair": True},
    ),
}


def computes_halves(target: Target) -> bool:
    """Whether what runs there takes the types of the file as they are and has kernels for halves.

    ONNX Runtime's CPU provider has none. Its TensorRT provider, before TensorRT 11, chooses types itself once halves
    are allowed, for raw amounts and normalisation as well: there halves are only stored.
    """
    return target.runtime == "tensorrt" or target.provider in ("cuda", "nv-tensorrt-rtx")
