"""Trains the credit-default Transformer and compares it with gradient-boosted trees on the same rows.

    python examples/credit_default/train.py --seed 0

The scales, the weights and the early stopping see the train and validation rows; the test rows are read once,
for the table at the end.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from model import COLUMNS, CreditTransformer, build
from safetensors.torch import save_file
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from compress.data.split import hash_split

HERE = Path(__file__).resolve().parent
TARGET = "default.payment.next.month"
FRACTIONS = {"train": 0.6, "calibration": 0.1, "validation": 0.1, "test": 0.2}
SPLIT_SEED = 0


def main() -> None:
    """Trains, writes the checkpoint, prints the table."""
    options = _options()
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rows = load(options.data)

    model = build(dropout=options.dropout)
    model.numbers.fit(rows["train"][0])
    model, validation_auc = train(model, rows["train"], rows["validation"], options)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, options.out)
    wall_minutes = (time.perf_counter() - started) / 60
    cpu_minutes = time.process_time() / 60

    trees = HistGradientBoostingClassifier(early_stopping=True, random_state=options.seed)
    trees.fit(
        rows["train"][0].numpy(),
        rows["train"][1].numpy(),
        X_val=rows["validation"][0].numpy(),
        y_val=rows["validation"][1].numpy(),
    )
    features, target = rows["test"]
    test_auc = roc_auc_score(target, predict(model, features))
    report = [
        ("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}"),
        ("Transformer, validation AUC", f"{validation_auc:.4f}"),
        ("Transformer, test AUC", f"{test_auc:.4f}"),
    ]
    for name in ("validation", "test"):
        auc = roc_auc_score(rows[name][1], trees.predict_proba(rows[name][0].numpy())[:, 1])
        report.append((f"boosted trees, {name} AUC", f"{auc:.4f}"))
    report.append(("test AUC, Transformer - trees", f"{test_auc - auc:+.4f}"))
    report.append(("seed", str(options.seed)))
    report.append(("training, wall minutes", f"{wall_minutes:.1f}"))
    report.append(("training, processor minutes", f"{cpu_minutes:.1f}"))
    print()
    for label, value in report:
        print(f"{label:<32}{value:>10}")


def load(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Reads the table into splits of raw features `[rows, 23]` and targets `[rows]`, both float32."""
    frame = pd.read_csv(path)
    features = torch.from_numpy(frame[COLUMNS].to_numpy(np.float32))
    target = torch.from_numpy(frame[TARGET].to_numpy(np.float32))
    splits = hash_split(frame["ID"].to_numpy(), FRACTIONS, SPLIT_SEED)
    return {name: (features[index], target[index]) for name, index in splits.items()}


def train(
    model: CreditTransformer,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    options: argparse.Namespace,
) -> tuple[CreditTransformer, float]:
    """Gives the moving average of the weights at the epoch of the best validation AUC, and that AUC."""
    features, target = training
    steps = math.ceil(len(features) / options.batch)
    optimizer = torch.optim.AdamW(_decay_groups(model, options.weight_decay), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_up_cosine(step, warm_up=steps, total=steps * options.epochs)
    )
    average = copy.deepcopy(model).eval()
    best, best_auc, best_epoch = copy.deepcopy(average), 0.0, 0
    for epoch in range(1, options.epochs + 1):
        model.train()
        losses = []
        for index in torch.randperm(len(features)).split(options.batch):
            batch = _hide(features[index], options.hide)
            loss = F.binary_cross_entropy_with_logits(model(batch)["logit"][:, 0], target[index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            _move_towards(average, model, 1.0 - options.average_decay)
            losses.append(loss.item())
        auc = float(roc_auc_score(validation[1], predict(average, validation[0])))
        print(f"epoch {epoch:2d}  training loss {np.mean(losses):.4f}  validation AUC {auc:.4f}", flush=True)
        if auc > best_auc:
            best, best_auc, best_epoch = copy.deepcopy(average), auc, epoch
        elif epoch - best_epoch >= options.patience:
            break
    return best, best_auc


@torch.no_grad()
def predict(model: CreditTransformer, features: Tensor) -> np.ndarray:
    """Gives the log-odds `[rows]` of raw features `[rows, 23]`."""
    model.eval()
    return torch.cat([model(batch)["logit"][:, 0] for batch in features.split(1024)]).numpy()


def _hide(features: Tensor, share: float) -> Tensor:
    # Without missing values in training, the "unknown" embeddings would stay at their random start.
    return features.masked_fill(torch.rand_like(features) < share, math.nan)


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    known = {id(weight) for weight in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _warm_up_cosine(step: int, warm_up: int, total: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


@torch.no_grad()
def _move_towards(average: nn.Module, model: nn.Module, share: float) -> None:
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, share)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE / "data" / "taiwan_credit_default.csv.gz")
    parser.add_argument("--out", type=Path, default=HERE / "credit.safetensors")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--hide", type=float, default=0.05, help="share of training values replaced by NaN")
    parser.add_argument("--average-decay", type=float, default=0.995, help="per step, for the averaged weights")
    parser.add_argument("--patience", type=int, default=3, help="epochs without a better validation AUC")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
