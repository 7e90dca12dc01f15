"""`[[passes]] kind = "train"`: the keys that every pass that trains has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from compress.schema import Strict


class AugmentOptions(Strict):
    """Rows changed at random, each time they are fed; the labels stay.

    Tables and arrays: `swap`, the share of values replaced by those of other rows (Yoon et al. 2020, VIME), and
    `mixup`, the shape of the Beta distribution of how two rows are mixed (Zhang et al. 2018, arXiv:1710.09412).
    Images: `flip` left to right, `shift` by up to so many pixels, `crop`, the share of a side that may be cut off.
    Texts: `mask`, the share of tokens replaced by the mask token (Devlin et al. 2019, arXiv:1810.04805).
    `views`: so many fixed forms of each row, the row itself among them, instead of a new one each time; a teacher
    answers each of them once. What takes values from other rows has no such forms.
    """

    swap: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0, le=10)
    flip: bool = False
    shift: int = Field(default=0, ge=0, le=256)
    crop: float = Field(default=0.0, ge=0, lt=1)
    mask: float = Field(default=0.0, ge=0, lt=1)
    views: int = Field(default=0, ge=0, le=100)

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return self.model_copy(update={"views": 0}) != AugmentOptions()

    @model_validator(mode="after")
    def _views_of_one_row(self) -> AugmentOptions:
        if self.views and (self.swap or self.mixup):
            raise ValueError("views are forms of one row, and swap and mixup need others; remove one of the keys")
        if self.views == 1:
            raise ValueError("views = 1 is the row as it is, which nothing changes; use 2 or more, or remove the key")
        if self.views and not self.active:
            raise ValueError("views need something that changes a row: flip, shift, crop or mask")
        return self


class TrainOptions(Strict):
    """How a Model trains.

    1. AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); `weight_decay` pulls on the weights of layers that
       multiply, not on biases, normalisations and tables.
    2. The rate rises over the share `warm_up` of all steps and falls to `final_rate` of itself along a cosine.
    3. The weights that are judged and kept are moving averages, where `ema` is not 0.
    4. Training ends after `epochs`, or when `patience` of them passed without a better figure of `monitor` on the
       validation rows. The best epoch is kept, which may be none: what came in is epoch 0.
    5. `class_weights`: `balanced` gives every class the same weight in sum, a list names them for the only task with
       classes, a table for each task. `focal` is the exponent of the focal loss (Lin et al. 2017, arXiv:1708.02002).
       `sampling = "stratified"` spreads the classes evenly over the batches; `balanced` shows each class equally often.
    """

    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=256, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    final_rate: float = Field(default=0.0, ge=0, le=1)
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    patience: int = Field(default=5, ge=1)
    monitor: Literal["metric", "loss"] = "metric"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    sampling: Literal["shuffle", "stratified", "balanced"] = "shuffle"
    class_weights: Literal["none", "balanced"] | tuple[float, ...] | dict[str, tuple[float, ...]] = "none"
    focal: float = Field(default=0.0, ge=0, le=10)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    task_weights: dict[str, float] = Field(default={})
    dropout: float | None = Field(default=None, ge=0, lt=1)
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    batch_norm: Literal["train", "frozen"] = "train"
    freeze: tuple[str, ...] = ()
    augment: AugmentOptions = AugmentOptions()
    checkpoint_s: float = Field(default=60.0, ge=0)

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, value: object) -> object:
        lists = value.values() if isinstance(value, dict) else (value,) if isinstance(value, tuple) else ()
        if any(not weight > 0 for weights in lists for weight in weights):
            raise ValueError("a class's weight must be more than 0")
        return value

    @field_validator("task_weights")
    @classmethod
    def _not_negative(cls, value: dict[str, float]) -> dict[str, float]:
        if any(weight < 0 for weight in value.values()):
            raise ValueError("a task's weight must be 0 or more")
        return value
