"""What the image models share: convolution with normalisation, squeeze-and-excitation, the scale of pixels.

Submodules are named and numbered so that the well-known ImageNet checkpoints fit; a number is a place in an
`nn.Sequential`, layers without weights included.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.zoo.arguments import at_least, fraction

# Mean and standard deviation of the ImageNet training images, of red, green and blue in 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageModel(nn.Module):
    """Feature maps, their mean over the image, a classifier on it.

    Args:
        features: `[batch, 3, height, width]` to `[batch, channels, rows, columns]`.
        classifier: `[batch, channels]` to `[batch, classes]`.
        normalise: Whether the graph itself scales pixels.
    """

    def __init__(self, features: nn.Module, classifier: nn.Module, normalise: bool) -> None:
        super().__init__()
        self.pixels = PixelScale() if normalise else nn.Identity()
        self.features = features
        self.classifier = classifier
        self.apply(_initialise)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Gives `{"scores": [batch, classes]}`, unnormalised, for float32 `image` `[batch, 3, height, width]`.

        Red, green, blue. Values are scaled already, or 0..255 with `normalise`.
        """
        maps = self.features(self.pixels(image))
        return {"scores": self.classifier(maps.mean(dim=(2, 3)))}


class PixelScale(nn.Module):
    """Maps pixels 0..255 to zero mean and unit variance over ImageNet. No part of a checkpoint."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            scaled = 255 * torch.tensor(values).reshape(1, 3, 1, 1)
            self.register_buffer(name, scaled, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Maps `image` `[batch, 3, height, width]` to the same shape; a grey one, of one channel, to three."""
        return (image - self.mean) / self.std


def conv_norm(
    channels_in: int,
    channels_out: int,
    kernel: int,
    norm: Callable[[int], nn.Module],
    activation: Callable[[], nn.Module] | None,
    stride: int = 1,
    depthwise: bool = False,
) -> nn.Sequential:
    """Returns a convolution that keeps the size (but for the stride), its normalisation and its activation.

    Args:
        channels_in: Channels that go in.
        channels_out: Channels that come out.
        kernel: Height and width of the kernel, odd.
        norm: Gives the normalisation of that many channels.
        activation: Gives the activation; None for a linear output.
        stride: Step of the kernel.
        depthwise: Whether each channel has a kernel of its own; `channels_in` equals `channels_out` then.
    """
    groups = channels_in if depthwise else 1
    layers = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        norm(channels_out),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    """Weighs channels by what their means over the image say (Hu, Shen and Sun 2018, arXiv:1709.01507).

    Args:
        channels: Channels of the feature map.
        squeezed: Channels of the hidden layer.
        activation: Behind the hidden layer.
        gate: Maps the weights to 0..1.
    """

    def __init__(self, channels: int, squeezed: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation
        self.gate = gate

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `maps` `[batch, channels, rows, columns]` to the same shape."""
        means = maps.mean(dim=(2, 3), keepdim=True)
        weighed: Tensor = maps * self.gate(self.fc2(self.activation(self.fc1(means))))
        return weighed


def divisible(channels: float, divisor: int = 8) -> int:
    """Returns the nearest multiple of `divisor` that is at least it and at most a tenth below `channels`."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def check_image_arguments(classes: int, width: float, dropout: float) -> None:
    """Refuses what no image model can be built from.

    Raises:
        ModelError: Naming the argument.
    """
    at_least(1, classes=classes)
    at_least(0.05, width=width)
    fraction(dropout=dropout)


def _initialise(module: nn.Module) -> None:
    """He initialisation of convolutions, small normal weights in the classifier."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
