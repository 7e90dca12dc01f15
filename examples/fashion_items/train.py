"""Trains a MobileNet on Fashion-MNIST.

    python examples/assets.py mobilenet_v2 fashion_mnist
    python examples/fashion_items/train.py --seed 0 --threads 2
    python examples/fashion_items/train.py --network v3-small --seed 0

MobileNetV2 starts from ImageNet's weights and sees most epochs at 64 x 64, which costs less, the last one at the size
that ships. The small MobileNetV3 starts from nothing: what it learns at one size does not hold at another. The weights
see the train rows; the validation rows choose the epoch; the test rows are read once, at the end.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from data import HERE, rows
from model import FashionModel, build, build_v3_small
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PRETRAINED = HERE.parent / ".cache" / "mobilenet_v2" / "mobilenet_v2-b0353104.pth"


@dataclass(frozen=True)
class Network:
    """What differs from network to network.

    Attributes:
        start: Builds the model with the weights that training starts from; is given the checkpoint of ImageNet.
        out: Where the trained weights go.
        sizes: Height and width of the pictures, one epoch each; the last is the size that ships.
        learning_rate: The highest.
    """

    start: Callable[[Path], FashionModel]
    out: str
    sizes: tuple[int, ...]
    learning_rate: float


def main() -> None:
    """Trains, keeps the best epoch, prints the table."""
    options = _options()
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    splits = load(options.data)
    model = NETWORKS[options.network].start(options.pretrained)
    best = train(model, splits["train"], splits["validation"], options)
    wall_minutes = (time.perf_counter() - started) / 60
    cpu_minutes = time.process_time() / 60

    model.load_state_dict(load_file(options.out))
    report = [
        ("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}"),
        ("validation accuracy", f"{best:.4f}"),
        ("test accuracy", f"{accuracy(model, *splits['test'], options.sizes[-1]):.4f}"),
        ("seed", str(options.seed)),
        ("training, wall minutes", f"{wall_minutes:.1f}"),
        ("training, processor minutes", f"{cpu_minutes:.1f}"),
        ("threads", str(options.threads)),
    ]
    print()
    for label, value in report:
        print(f"{label:<32}{value:>10}")


def load(folder: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Reads pictures `[rows, 1, 28, 28]` of 0..255 and classes `[rows]` by split."""
    read = rows(folder)
    images, classes = torch.from_numpy(read["inputs"]["image"]), torch.from_numpy(read["labels"]["class"])
    return {
        name: (images[members], classes[members])
        for name in ("train", "validation", "test")
        for members in [torch.from_numpy(read["splits"] == name)]
    }


def start_v2(pretrained: Path) -> FashionModel:
    """Builds MobileNetV2 with the ImageNet weights; the classifier of 1000 classes is left out."""
    model = build()
    # torch's first format, a bare pickle, which the package refuses: here SHA-256 and weights_only stand guard.
    loaded = torch.load(pretrained, map_location="cpu", weights_only=True)
    weights = {name: value for name, value in loaded.items() if not name.startswith("classifier.")}
    missing, unknown = model.backbone.load_state_dict(weights, strict=False)
    if unknown or [name for name in missing if not name.startswith("classifier.")]:
        raise SystemExit(f"{pretrained}: not the weights of this MobileNetV2; missing {missing}, unknown {unknown}")
    return model


def start_v3_small(pretrained: Path) -> FashionModel:
    """Builds the small MobileNetV3, untrained."""
    return build_v3_small()


NETWORKS = {
    "v2": Network(start_v2, "fashion.safetensors", (64, 64, 64, 96), 1e-3),
    "v3-small": Network(start_v3_small, "fashion-v3-small.safetensors", (64,) * 10, 3e-3),
}


def train(
    model: FashionModel,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    options: argparse.Namespace,
) -> float:
    """Trains one epoch a size, writes the epoch of the best validation accuracy, returns that accuracy."""
    images, classes = training
    # A depthwise convolution of a processor is about twice as fast with the channels last.
    model.to(memory_format=torch.channels_last)
    steps = math.ceil(len(images) / options.batch)
    total = steps * len(options.sizes)
    optimizer = torch.optim.AdamW(_decay_groups(model, options.weight_decay), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_up_cosine(step, warm_up=options.warm_up, total=total)
    )
    best = 0.0
    for epoch, size in enumerate(options.sizes, start=1):
        model.train()
        model.size = size
        losses = []
        for step, index in enumerate(torch.randperm(len(images)).split(options.batch), start=1):
            loss = F.cross_entropy(
                model(_flip(images[index]))["scores"], classes[index], label_smoothing=options.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if step % 50 == 0:
                print(f"epoch {epoch}  step {step:3d} of {steps}  loss {sum(losses[-50:]) / 50:.4f}", flush=True)
        shipped = options.sizes[-1]
        reached = accuracy(model, *validation, shipped)
        print(f"epoch {epoch}  at {size} x {size}  validation accuracy {reached:.4f} at {shipped} x {shipped}")
        if reached > best:
            best = reached
            _save(model, options.out)
    return best


@torch.no_grad()
def accuracy(model: FashionModel, images: Tensor, classes: Tensor, size: int) -> float:
    """Returns the share of pictures whose highest score is their class, at this size."""
    model.eval()
    model.size = size
    found = torch.cat([model(batch)["scores"].argmax(dim=1) for batch in images.split(256)])
    return float((found == classes).float().mean())


def _flip(images: Tensor) -> Tensor:
    """Mirrors about half of the pictures from left to right."""
    chosen = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Kernels and matrices decay; scales, shifts and biases do not."""
    decays = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _warm_up_cosine(step: int, warm_up: int, total: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def _save(model: nn.Module, path: Path) -> None:
    # One step: a run that is ended while it writes leaves the checkpoint of the epoch before.
    scratch = path.with_name(f".{path.name}.partial")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, scratch)
    os.replace(scratch, path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="v2")
    parser.add_argument("--data", default="../.cache/fashion_mnist", help="folder of the *-ubyte.gz files")
    parser.add_argument("--pretrained", type=Path, default=PRETRAINED)
    parser.add_argument("--out", type=Path, help="default: the network's file beside this script")
    parser.add_argument("--sizes", type=int, nargs="+", help="of the pictures, one epoch each; default: the network's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, help="default: the network's")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--warm-up", type=int, default=100, help="steps until the full learning rate")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    network = NETWORKS[options.network]
    options.out = options.out or HERE / network.out
    options.sizes = options.sizes or network.sizes
    options.learning_rate = options.learning_rate or network.learning_rate
    return options


if __name__ == "__main__":
    main()
