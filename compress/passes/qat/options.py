"""`[[passes]] kind = "qat"`."""

from __future__ import annotations

from pydantic import Field, model_validator

from compress.passes.distill.options import DistillOptions


class QatOptions(DistillOptions):
    """How a Model learns to be quantized; all keys of distillation hold but `student`.

    1. `scheme` is one of the recipe's static int8 schemes: its patterns and its granularity are simulated, with the
       bits of weights that the recipe's targets give it.
    2. With `if_loss_above` it trains only where quantizing without training loses more than this of the validation
       figure (of the loss, with `monitor = "loss"`).
    """

    scheme: str = "int8-static"
    if_loss_above: float | None = Field(default=None, ge=0)
    epochs: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    ema: float = Field(default=0.99, ge=0, lt=1)
    temperature: float = Field(default=1.0, gt=0, le=100)
    labels: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _no_student(self) -> QatOptions:
        if self.student is not None:
            raise ValueError("student: the model that is quantized is the one that comes in; remove the key")
        return self
