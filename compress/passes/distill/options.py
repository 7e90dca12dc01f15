"""`[[passes]] kind = "distill"`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compress.passes.train.options import TrainOptions
from compress.recipe import ModelConfig


class DistillOptions(TrainOptions):
    """How a student learns from a teacher; all keys of training hold, too.

    1. `teacher` is a table like `[model]`; default: the Model as it came, before all passes.
    2. `student` likewise; default: the Model that comes out of the passes before. With `start = "teacher"` it takes
       over every tensor that has the name and the shape of one of the teacher's; default where it has no weights.
    3. The loss is `labels` times that of the labels and `1 - labels` times the distance from the teacher's answers,
       whose logits are divided by `temperature` (Hinton, Vinyals and Dean 2015, arXiv:1503.02531); plus `hidden` times
       the distance of hidden states (Jiao et al. 2020, arXiv:1909.10351), `relations` times that of the relations
       inside the last attention (Wang et al. 2021, arXiv:2012.15828), `features` times that of the feature maps of
       convolutions (Romero et al. 2015, arXiv:1412.6550).
    4. `pairs` maps patterns on the student's layer names to patterns on the teacher's; default: by depth and shape.
    5. What the teacher answers is computed once and kept where it takes at most `cache_gb` and rows are not changed
       anew each time: without `augment`, or with its `views`.
    """

    teacher: ModelConfig | None = None
    student: ModelConfig | None = None
    start: Literal["own", "teacher"] | None = None
    temperature: float = Field(default=2.0, gt=0, le=100)
    labels: float = Field(default=0.3, ge=0, le=1)
    hidden: float = Field(default=0.0, ge=0)
    relations: float = Field(default=0.0, ge=0)
    relation_heads: int | None = Field(default=None, ge=1)
    features: float = Field(default=0.0, ge=0)
    pairs: dict[str, str] = Field(default={})
    cache_gb: float = Field(default=2.0, ge=0)
