"""Fine-tunes MiniLM-L6 to tell the 77 intents of Banking77 apart, and writes what recipe.toml names.

    python examples/message_intent/train.py --seed 0

Weights and data come through examples/assets.py. The test rows are the official ones; they are read once, for the table
at the end. Tokenizer, length, classes and splits are those of recipe.toml: training sees what the phone will feed.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.data import Dataset, hash_split, load_dataset
from compress.passes.train.device import has_bfloat16
from compress.recipe import DataConfig

logging.disable(logging.WARNING)  # transformers imports whatever it finds installed, and says so
from transformers import AutoTokenizer, BertForSequenceClassification  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from assets import fetch  # noqa: E402

# Of the official training rows; validation chooses, calibration sets integer ranges. Neither is trained on.
FRACTIONS = {"train": 0.88, "calibration": 0.06, "validation": 0.06}

BFLOAT16 = has_bfloat16()


def main() -> None:
    """Trains, writes the folder, prints the table."""
    options = _options()
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    write_table(fetch("banking77"), HERE / "banking77.csv")
    source = fetch("minilm")
    config = DataConfig.model_validate(tomllib.loads((HERE / "recipe.toml").read_text())["data"])
    dataset = load_dataset(config, HERE, model_folder=source)
    names = config.categories["category"]

    model = BertForSequenceClassification.from_pretrained(
        source,
        local_files_only=True,
        use_safetensors=True,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        hidden_dropout_prob=options.dropout,
    )
    train(model, dataset, options)
    model.save_pretrained(options.out)
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(options.out)
    wall_minutes, cpu_minutes = (time.perf_counter() - started) / 60, time.process_time() / 60
    report = [("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}")]
    report += [
        (f"{name} top-1 accuracy, {len(dataset.split(name)):,} rows", f"{accuracy(model, dataset, name):.4f}")
        for name in ("validation", "test")
    ]
    report += [
        ("seed", str(options.seed)),
        ("training, wall minutes", f"{wall_minutes:.1f}"),
        ("training, processor minutes", f"{cpu_minutes:.1f}"),
    ]
    print("\n" + "\n".join([*dataset.notes, ""]))
    for label, value in report:
        print(f"{label:<40}{value:>10}")


def write_table(source: Path, out: Path) -> None:
    """Writes the official rows as one table, with a column that says which split each belongs to."""
    rows = []
    for name in ("train", "test"):
        with (source / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    official = [row for row in rows if row["set"] == "train"]
    dealt = hash_split(np.array([row["id"] for row in official]), FRACTIONS, seed=0)
    split = {official[index]["id"]: name for name, members in dealt.items() for index in members}
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "text", "category", "split"])
        writer.writerows([row["id"], row["text"], row["category"], split.get(row["id"], "test")] for row in rows)


def train(model: BertForSequenceClassification, dataset: Dataset, options: argparse.Namespace) -> None:
    """Trains in place: AdamW, linear warm-up and decay, a smaller learning rate the deeper a layer lies."""
    members = dataset.split("train")
    labels = torch.from_numpy(dataset.labels["category"])
    lengths = np.concatenate([batch["attention_mask"].sum(axis=1) for batch in dataset.batches_of(members, 1024)])
    steps = math.ceil(len(members) / options.batch) * options.epochs
    optimizer = torch.optim.AdamW(_groups(model, options), weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
    )
    draw = np.random.default_rng(options.seed)
    for epoch in range(1, options.epochs + 1):
        model.train()
        losses = []
        for index in _batches(lengths, options.batch, draw):
            rows = members[index]
            loss = F.cross_entropy(
                scores(model, dataset, rows).float(), labels[rows], label_smoothing=options.smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        found = accuracy(model, dataset, "validation")
        print(f"epoch {epoch:2d}  training loss {np.mean(losses):.4f}  validation accuracy {found:.4f}", flush=True)


def scores(model: BertForSequenceClassification, dataset: Dataset, rows: np.ndarray) -> Tensor:
    """Gives `[rows, classes]`. Padding behind the longest text is left out: it changes no answer and costs time."""
    inputs = {name: torch.from_numpy(values) for name, values in dataset.reader.read(rows).items()}
    longest = int(inputs["attention_mask"].sum(dim=1).max())
    with torch.autocast("cpu", torch.bfloat16, enabled=model.training and BFLOAT16):
        made: Tensor = model(**{name: values[:, :longest] for name, values in inputs.items()}).logits
    return made


@torch.no_grad()
def accuracy(model: BertForSequenceClassification, dataset: Dataset, split: str) -> float:
    """Gives the share of a split's rows whose highest score is that of their class, in float32."""
    model.eval()
    members = dataset.split(split)
    found = [scores(model, dataset, rows).argmax(dim=1) for rows in np.array_split(members, len(members) // 128 + 1)]
    return float((torch.cat(found).numpy() == dataset.labels["category"][members]).mean())


def _batches(lengths: np.ndarray, size: int, draw: np.random.Generator, pool: int = 16) -> list[np.ndarray]:
    """Shuffled batches of texts of similar length: sorted within pools of `pool` batches, then shuffled."""
    order = draw.permutation(len(lengths))
    pools = [order[start : start + pool * size] for start in range(0, len(order), pool * size)]
    made = [
        part[start : start + size]
        for part in (members[np.argsort(lengths[members], kind="stable")] for members in pools)
        for start in range(0, len(part), size)
    ]
    return [made[index] for index in draw.permutation(len(made))]


def _groups(model: BertForSequenceClassification, options: argparse.Namespace) -> list[dict[str, object]]:
    """The head at its own learning rate, the body's falling layer by layer; the embeddings stay as they are."""
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    groups: list[dict[str, object]] = [
        {"params": list(model.classifier.parameters()), "lr": options.head_rate},
        {"params": list(model.bert.pooler.parameters()), "lr": options.rate},
    ]
    for depth, layer in enumerate(reversed(model.bert.encoder.layer)):
        groups.append({"params": list(layer.parameters()), "lr": options.rate * options.layer_decay**depth})
    return groups


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "model")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of the last layer")
    parser.add_argument("--head-rate", type=float, default=1e-3)
    parser.add_argument("--layer-decay", type=float, default=0.9, help="factor on the rate, layer by layer downwards")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--smoothing", type=float, default=0.1, help="of the labels")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
