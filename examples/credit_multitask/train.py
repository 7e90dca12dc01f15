"""Trains hard and soft sharing, and a network a task as their reference, and compares them on the test rows.

    python examples/credit_multitask/train.py --seed 0

All see the same rows, in the same order, as often. The scales and the weights see the train rows; the validation rows
choose the epoch; the test rows are read once, for the table at the end.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from data import HERE, rows
from model import TASKS, CreditRisks, build
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.data.split import hash_split
from compress.evaluate.tasks import compare_task
from compress.evidence import Metric
from compress.zoo.multitask import read_tasks, soft_sharing_penalty

# Those of examples/credit_default.
FRACTIONS = {"train": 0.6, "calibration": 0.1, "validation": 0.1, "test": 0.2}
SPLIT_SEED = 0
SHOWN = {"default": ("auc",), "delinquency": ("top_1", "macro_f1"), "growth": ("r2", "mae")}


@dataclass(frozen=True)
class Rows:
    """A split: raw features `[rows, 20]`, and labels by task, `[rows]` each."""

    features: Tensor
    labels: dict[str, Tensor]

    def take(self, index: Tensor) -> Rows:
        """Gives the rows of an index."""
        return Rows(self.features[index], {name: values[index] for name, values in self.labels.items()})


def main() -> None:
    """Trains, writes two checkpoints, prints the tables."""
    options = _options()
    torch.set_num_threads(options.threads)
    splits = load(options.data)
    models = {sharing: train(sharing, sharing, TASKS, splits, options) for sharing in ("hard", "soft")}
    for task in TASKS:
        name = task.partition(":")[0]
        models[name] = train(f"only {name}", "hard", (task,), splits, options)

    if not options.validation_only:
        for sharing in ("hard", "soft"):
            weights = {name: value.contiguous() for name, value in models[sharing].state_dict().items()}
            save_file(weights, options.out / f"{sharing}.safetensors")
    for split in ("validation",) if options.validation_only else ("validation", "test"):
        print(f"\n{split}, {len(splits[split].features):,} rows")
        print_table(models, splits[split])


def load(table: Path) -> dict[str, Rows]:
    """Reads the table into splits."""
    read = rows(str(table))
    features = torch.tensor(read["inputs"]["features"])
    labels = {name: torch.tensor(values) for name, values in read["labels"].items()}
    every = Rows(
        features, {name: values if name == "delinquency" else values.float() for name, values in labels.items()}
    )
    splits = hash_split(read["ids"], FRACTIONS, SPLIT_SEED)
    return {name: every.take(torch.from_numpy(index)) for name, index in splits.items()}


def train(
    title: str, sharing: str, tasks: Sequence[str], splits: dict[str, Rows], options: argparse.Namespace
) -> CreditRisks:
    """Gives the model at the epoch of the least validation loss.

    Args:
        title: What the printed line says.
        sharing: `hard` or `soft`.
        tasks: The tasks of the model.
        splits: What `load` gives.
        options: Of the command line.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    torch.manual_seed(options.seed)
    model = build(sharing, tasks, dropout=options.dropout)
    training, validation = splits["train"], splits["validation"]
    spread = float(training.labels["growth"].std())
    model.fit_scale(training.features)
    steps = math.ceil(len(training.features) / options.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * options.epochs)
    # The order of the rows has a generator of its own, so that dropout in more trunks does not change it.
    order = torch.Generator().manual_seed(options.seed)
    best, best_loss, best_epoch = copy.deepcopy(model), math.inf, 0
    for epoch in range(1, options.epochs + 1):
        model.train()
        for index in torch.randperm(len(training.features), generator=order).split(options.batch):
            batch = training.take(index)
            total = sum(losses(model(_hide(batch.features, options.hide)), batch.labels, spread).values())
            if sharing == "soft":
                total = total + options.penalty * soft_sharing_penalty(model.net)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            schedule.step()
        found = validation_losses(model, validation, spread)
        if sum(found.values()) < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(model), sum(found.values()), epoch
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    print(
        f"{title:<17} {sum(parameter.numel() for parameter in model.parameters()):>8,} parameters  "
        f"epoch {best_epoch:2d} of {options.epochs}  validation loss {best_loss:.4f}  "
        f"{seconds:.0f} s of wall time, {cpu_seconds:.0f} s of processor time",
        flush=True,
    )
    return best.eval()


def losses(outputs: dict[str, Tensor], labels: dict[str, Tensor], spread: float) -> dict[str, Tensor]:
    """Gives the mean loss of each task that the outputs have; rows and classes all count alike.

    The squared error of `growth` is in units of `spread` squared, so that no task drowns the others.
    """
    found = {}
    for name, scores in outputs.items():
        if name == "default":
            found[name] = F.binary_cross_entropy_with_logits(scores[:, 0], labels[name])
        elif name == "delinquency":
            found[name] = F.cross_entropy(scores, labels[name])
        else:
            found[name] = F.mse_loss(scores[:, 0] / spread, labels[name] / spread)
    return found


@torch.no_grad()
def validation_losses(model: nn.Module, validation: Rows, spread: float) -> dict[str, float]:
    """Gives the loss of each task without dropout, without hidden values and without the penalty."""
    model.eval()
    return {name: float(loss) for name, loss in losses(model(validation.features), validation.labels, spread).items()}


def print_table(models: dict[str, CreditRisks], split: Rows) -> None:
    """Prints each task's figures, and what sharing changes beside the network of that task alone."""
    print(f"{'':<24}{'only this task':>14}  {'hard':>7}  {'change (95 % interval)':<28}{'soft':>7}  change")
    with torch.no_grad():
        outputs = {
            name: {task: scores.numpy() for task, scores in model(split.features).items()}
            for name, model in models.items()
        }
    for task, kind in read_tasks(TASKS).items():
        found = {
            sharing: compare_task(
                "multiclass" if isinstance(kind, int) else kind,
                split.labels[task].numpy(),
                outputs[task][task],
                outputs[sharing][task],
                task=task,
                link=None if kind == "regression" else "logit",
                cutoff=0.5,
                resamples=1000,
                seed=0,
                where=task,
            )
            for sharing in ("hard", "soft")
        }
        for name in SHOWN[task]:
            hard, soft = (_named(found[sharing], name) for sharing in ("hard", "soft"))
            print(
                f"{task + ' ' + name:<24}{hard.baseline:>14.4f}  {hard.value:>7.4f}  {_change(hard):<28}"
                f"{soft.value:>7.4f}  {_change(soft)}"
            )


def _named(metrics: Sequence[Metric], name: str) -> Metric:
    return next(metric for metric in metrics if metric.name == name)


def _change(metric: Metric) -> str:
    interval = metric.interval
    return f"{metric.difference:+.4f}" + (f" ({interval.low:+.4f} to {interval.high:+.4f})" if interval else "")


def _hide(features: Tensor, share: float) -> Tensor:
    # Without missing values in training, the model would not know what to make of one.
    return features.masked_fill(torch.rand_like(features) < share, math.nan)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../credit_default/data/taiwan_credit_default.csv.gz"))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the checkpoints")
    parser.add_argument(
        "--validation-only", action="store_true", help="to choose settings: no test rows, no checkpoint"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument(
        "--penalty", type=float, default=1e-3, help="weight of the distance between trunks, soft sharing"
    )
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--hide", type=float, default=0.05, help="share of training values replaced by NaN")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
