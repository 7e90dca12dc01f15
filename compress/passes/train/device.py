"""Where a pass trains, and in which precision."""

from __future__ import annotations

import os

import torch

from compress.errors import RecipeError
from compress.passes.train.options import TrainOptions

_TYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(options: TrainOptions, where: str) -> tuple[torch.device, torch.dtype | None]:
    """Returns the device, and the type of mixed precision, None for float32 throughout.

    `auto` is a GPU where there is one, in bfloat16 where it has that; else the processor, in float32: depthwise
    convolutions are slower in its bfloat16, and the same seed would not give the same weights on two processors.
    Transformers train some 1.7 times as fast so, and it may be asked for where the processor has the instructions.

    Raises:
        RecipeError: If a GPU or a precision is asked for that is not there, or several processes were launched.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            f"{where}: a launcher started {os.environ['WORLD_SIZE']} processes like this one, and a pass trains in one",
            "run it without the launcher; train large models with a script of your own under torchrun or accelerate, "
            "and name its weights in model.weights.",
        )
    has_gpu = torch.cuda.is_available()
    if options.device == "cuda" and not has_gpu:
        raise RecipeError(f'{where}.device = "cuda": there is no GPU that torch can use', 'use "auto" or "cpu".')
    if options.device == "cpu" or not has_gpu:
        return torch.device("cpu"), _of_processor(options.precision, where)
    if options.precision == "auto":
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.device("cuda"), _TYPES[options.precision]


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; elsewhere it is emulated, some ten times as slow as float32."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _of_processor(precision: str, where: str) -> torch.dtype | None:
    if precision in ("auto", "float32"):
        return None
    if precision == "float16":
        raise RecipeError(f'{where}.precision = "float16": it needs a GPU', 'use "auto", "float32" or "bfloat16".')
    if not has_bfloat16():
        raise RecipeError(
            f'{where}.precision = "bfloat16": this processor has no instructions for it', 'use "auto" or "float32".'
        )
    return torch.bfloat16
