"""The training loop: from a network, rows and an objective to the weights of the best epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import PassError
from compress.evidence import EpochInfo
from compress.passes.train.checkpoint import optimizer_tensors, read_state, restore_optimizer, write_state
from compress.passes.train.feed import Batch, Feed
from compress.passes.train.memory import kept_memory
from compress.passes.train.network import Network
from compress.passes.train.options import TrainOptions
from compress.passes.train.score import Score, Validator


class Objective(Protocol):
    """What is minimised."""

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What learns beside the network and is not part of the Model: projections, ranges."""

    def __call__(self, outputs: Mapping[str, Tensor], taps: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Returns the mean loss of a batch, a scalar."""


@dataclass(frozen=True)
class Fitted:
    """What a training run leaves.

    Attributes:
        weights: Name to tensor, of all that moved; empty where no epoch was better than what came in.
        epochs: What was seen after each epoch; the first is what came in.
        best: The epoch that was kept.
        before, after: Figures of the validation rows; None without such rows.
        ended: Why it ended.
        steps: Steps of the optimizer.
        seconds: Wall time; that of interrupted parts counts up to their last checkpoint.
    """

    weights: Mapping[str, Tensor]
    epochs: tuple[EpochInfo, ...]
    best: int
    before: Score | None
    after: Score | None
    ended: str
    steps: int
    seconds: float


@dataclass
class _Course:
    """Where a run stands; all of it goes to disk."""

    step: int = 0
    epoch: int = 1
    summed: float = 0.0
    best: int = 0
    epochs: list[EpochInfo] = field(default_factory=list)
    scores: list[Score | None] = field(default_factory=list)
    ended: str = ""
    seconds: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Trainer:
    """Minimises an objective.

    1. The same seed, rows and settings give the same weights on a processor, also where the run was killed and went on:
       every step draws from a generator that is seeded by the seed and the step's number.
    2. Before the first step, and after each epoch, the validation rows are scored; the best is kept.
    3. A loss that is no number ends the run with an error; what was best stays on disk.

    Attributes:
        network: What learns.
        objective: What is minimised.
        feed: The rows of every step.
        validator: What scores; None without validation rows: then the last epoch is kept.
        decayed: Names of the parameters that weight decay pulls on.
        options: How.
        seed: Of every draw.
        precision: Type of mixed precision, None for float32.
        folder: Where checkpoints are kept; None for none.
        title: What is said before the figures of an epoch.
        say: Told the figures of every epoch.
    """

    network: Network
    objective: Objective
    feed: Feed
    validator: Validator | None
    decayed: frozenset[str]
    options: TrainOptions
    seed: int
    precision: torch.dtype | None
    folder: Path | None
    title: str
    say: Callable[[str], None]

    def fit(self) -> Fitted:
        """Trains, or goes on where an earlier run with the same folder was ended.

        Raises:
            PassError: If the loss or a gradient is no finite number.
            StoreError: If a checkpoint cannot be written.
        """
        devices = [self.network.device] if self.network.device.type == "cuda" else []
        with kept_memory(), torch.random.fork_rng(devices=devices):
            return self._fit()

    def _fit(self) -> Fitted:
        self._course, self._began = _Course(), time.monotonic()
        self._moving = {**self.network.moving, **self.objective.parameters}
        self._learning = {name: value for name, value in self._moving.items() if isinstance(value, nn.Parameter)}
        self._optimizer = self._make_optimizer()
        self._scaler = torch.amp.GradScaler(self.network.device.type, enabled=self.precision is torch.float16)
        self._average = {name: value.detach().clone() for name, value in self._moving.items()}
        self._kept: dict[str, Tensor] = {}
        self._resume()
        if not self._course.epochs:
            self._look()
        self._saved = time.monotonic()
        while not self._course.ended:
            self._epoch()
        course = self._course
        return Fitted(
            weights=self._kept,
            epochs=tuple(course.epochs),
            best=course.best,
            before=course.scores[0],
            after=course.scores[course.best],
            ended=course.ended,
            steps=course.step,
            seconds=course.seconds,
        )

    def _epoch(self) -> None:
        course, steps = self._course, self.feed.steps
        self.network.train()
        for number, positions in enumerate(self.feed.order.epoch(course.epoch)):
            # What an earlier run has done of this epoch.
            if number < course.step - (course.epoch - 1) * steps:
                continue
            self._step(positions)
            if self.folder is not None and time.monotonic() - self._saved >= self.options.checkpoint_s:
                self._save()
        self.network.eval()
        self._look()
        course.epoch, course.summed = course.epoch + 1, 0.0
        self._finish_if_done()
        self._save()

    def _step(self, positions: Any) -> None:
        course = self._course
        source = np.random.SeedSequence([self.seed, course.step])
        torch.manual_seed(int(source.generate_state(1, np.uint64)[0] >> 1))
        batch = self.feed.batch(positions, np.random.default_rng(source))
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        with torch.autocast(self.network.device.type, dtype=self.precision, enabled=self.precision is not None):
            outputs, taps = self.network(batch.inputs)
            loss = self.objective(outputs, taps, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._diverged(f"the loss became {value}")
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._learning.values(), self.options.clip)
        # Half precision overflows now and then; its scaler then skips the step and scales less.
        if not self._scaler.is_enabled() and not torch.isfinite(norm):
            self._diverged(f"the gradient became {float(norm)}")
        self._scaler.step(self._optimizer)
        self._scaler.update()
        course.step += 1
        course.summed += value
        self._follow()

    def _rate(self) -> float:
        """Linear warm-up, then a cosine."""
        total = self.feed.steps * self.options.epochs
        warm = round(self.options.warm_up * total)
        step = self._course.step
        if step < warm:
            return self.options.learning_rate * (step + 1) / warm
        share = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        return self.options.learning_rate * (self.options.final_rate + (1 - self.options.final_rate) * share)

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the average; young averages follow faster, so that they forget the start."""
        decay = min(self.options.ema, self._course.step / (self._course.step + 9))
        for name, value in self._moving.items():
            self._average[name].lerp_(value.detach(), 1 - decay)

    def _look(self) -> None:
        """Scores what would be kept now, and keeps it if it is the best so far."""
        course = self._course
        score = None
        number = len(course.epochs)
        if self.validator is not None:
            with _swapped(self._moving, self._average):
                score = self.validator(lambda inputs: self.network(inputs)[0], self.network.device)
            if not math.isfinite(score.loss):
                self._diverged(f"the loss of the validation rows became {score.loss}")
        course.scores.append(score)
        course.epochs.append(
            EpochInfo(
                epoch=number,
                train_loss=course.summed / self.feed.steps if number else None,
                loss=score.loss if score else None,
                metric=score.metric if score else None,
            )
        )
        # Without validation rows nothing speaks for an epoch but that it is the last.
        if number and (score is None or self._value(number) > self._value(course.best)):
            course.best = number
            self._kept = {name: value.clone() for name, value in self._average.items()}
            if self.folder is not None:
                write_state(self._best(number), self._kept, {})
        self.say(f"{self.title}, {self._told()}")

    def _value(self, number: int) -> float:
        seen = self._course.epochs[number]
        if self.options.monitor == "metric" and seen.metric is not None:
            return seen.metric
        return -seen.loss if seen.loss is not None else 0.0

    def _told(self) -> str:
        seen = self._course.epochs[-1]
        parts = [f"epoch {seen.epoch} of {self.options.epochs}" if seen.epoch else "before"]
        if seen.train_loss is not None:
            parts.append(f"loss {seen.train_loss:.4f}")
        if seen.loss is not None:
            parts.append(f"validation loss {seen.loss:.4f}")
        if seen.metric is not None and self.validator is not None:
            parts.append(f"{self.validator.metric} {seen.metric:.4f}")
        return ", ".join(parts)

    def _finish_if_done(self) -> None:
        course = self._course
        last = course.epochs[-1].epoch
        if self.validator is not None and last - course.best >= self.options.patience:
            since = last - course.best
            course.ended = f"{since} epoch{'s' if since > 1 else ''} without a better one"
        elif last >= self.options.epochs:
            course.ended = "all epochs are done"

    def _diverged(self, what: str) -> None:
        course = self._course
        kept = self._best(course.best) if self.folder is not None and course.best else None
        raise PassError(
            f"{self.title}: {what} in epoch {course.epoch}, step {course.step + 1}",
            f"lower learning_rate (now {self.options.learning_rate:g}), raise warm_up, or look for rows with missing "
            "or huge values." + (f" The best epoch so far, {course.best}, is in {kept}." if kept else ""),
        )

    def _make_optimizer(self) -> torch.optim.AdamW:
        pulled = [value for name, value in self._learning.items() if name in self.decayed]
        others = [value for name, value in self._learning.items() if name not in self.decayed]
        groups: Iterable[dict[str, Any]] = [
            {"params": pulled, "weight_decay": self.options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self.options.learning_rate)

    def _clock(self) -> None:
        now = time.monotonic()
        self._course.seconds, self._began = self._course.seconds + now - self._began, now

    def _best(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"best-{number:04d}.safetensors"

    def _save(self) -> None:
        self._clock()
        if self.folder is None:
            return
        self._course.scaler = self._scaler.state_dict()
        tensors: dict[str, Tensor] = {}
        # A run that has ended needs only what it kept.
        if not self._course.ended:
            for kind, held in (
                ("now", self._moving),
                ("average", self._average),
                ("adam", optimizer_tensors(self._optimizer, self._learning)),
            ):
                tensors |= {f"{kind}/{name}": value for name, value in held.items()}
        write_state(self.folder / "last.safetensors", tensors, asdict(self._course))
        for path in self.folder.glob("best-*.safetensors"):
            if path != self._best(self._course.best):
                path.unlink()
        self._saved = time.monotonic()

    def _resume(self) -> None:
        found = read_state(self.folder / "last.safetensors") if self.folder is not None else None
        if found is None:
            return
        tensors, values = found
        values.pop("schema")
        course = _Course(**values)
        best = read_state(self._best(course.best)) if course.best else ({}, {})
        # The best weights are gone: nothing of the rest is worth anything.
        if best is None:
            return
        self._kept = {name: value.to(self.network.device) for name, value in best[0].items()}
        course.epochs = [EpochInfo(**dict(item)) for item in values["epochs"]]
        course.scores = [None if item is None else Score(**item) for item in values["scores"]]
        self._course = course
        if course.ended:
            return
        with torch.no_grad():
            for kind, held in (("now", self._moving), ("average", self._average)):
                for name, value in held.items():
                    value.copy_(tensors[f"{kind}/{name}"])
        moments = {name.removeprefix("adam/"): value for name, value in tensors.items() if name.startswith("adam/")}
        restore_optimizer(self._optimizer, self._learning, moments)
        if course.scaler:
            self._scaler.load_state_dict(course.scaler)


@contextlib.contextmanager
@torch.no_grad()
def _swapped(live: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[None]:
    """Puts other values into tensors for as long as it is open."""
    kept = {name: value.detach().clone() for name, value in live.items()}
    for name, value in live.items():
        value.copy_(other[name])
    try:
        yield
    finally:
        for name, value in live.items():
            value.copy_(kept[name])
