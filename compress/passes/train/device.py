"""Where a pass trains, and in which precision."""

from __future__ import annotations

import os

import torch

from compress.errors import RecipeError
from compress.passes.train.options import TrainOptions

_TYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(options: TrainOptions, where: str) -> tuple[torch.device, torch.dtype | None]:
    """Returns the device, and the type of mixed precision, None for float32 throughout.

    `auto` is a GPU where there is one, in bfloat16 where it has that; else the processor, in float32: its bfloat16
    would be slower than float32 on most, and the same seed would not give the same weights on two of them.

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
        if options.precision not in ("auto", "float32"):
            raise RecipeError(
                f'{where}.precision = "{options.precision}": mixed precision needs a GPU', 'use "auto" or "float32".'
            )
        return torch.device("cpu"), None
    if options.precision == "auto":
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.device("cuda"), _TYPES[options.precision]
