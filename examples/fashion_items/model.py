"""MobileNets that take the picture as an app holds it: one channel of 28 x 28 bytes' values.

The resize, the three channels and the scale of ImageNet are inside the graph, so a phone prepares nothing, and no two
platforms can resize differently. The networks are MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2:
Inverted Residuals and Linear Bottlenecks", CVPR 2018, arXiv:1801.04381) and the small MobileNetV3 (Howard et al.,
"Searching for MobileNetV3", ICCV 2019, arXiv:1905.02244), as the package's zoo has them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compress.zoo.convolution import PixelScale
from compress.zoo.mobilenet import mobilenet_v2, mobilenet_v3_small

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class FashionModel(nn.Module):
    """Ten scores for a small grey picture.

    Args:
        backbone: Gives scores of the classes for a picture `[batch, 3, size, size]` in ImageNet's scale.
        size: Height and width that the backbone sees.
    """

    def __init__(self, backbone: nn.Module, size: int) -> None:
        super().__init__()
        self.size = size
        self.pixels = PixelScale()
        self.backbone = backbone

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Gives `{"scores": [batch, 10]}`, unnormalised, for float32 `image` `[batch, 1, 28, 28]` of 0..255."""
        # A bilinear resize keeps an affine map: before it the scale costs a twelfth of what it would at 96 x 96, and
        # makes the three channels without a copy.
        enlarged = F.interpolate(self.pixels(image), size=(self.size, self.size), mode="bilinear", align_corners=False)
        scores: dict[str, Tensor] = self.backbone(enlarged)
        return scores


def build(size: int = 96, dropout: float = 0.2) -> FashionModel:
    """Builds MobileNetV2, untrained; 2,236,682 parameters.

    Args:
        size: Height and width that the backbone sees.
        dropout: Share of features dropped before the classifier in training.
    """
    return FashionModel(mobilenet_v2(classes=len(CLASSES), dropout=dropout), size)


def build_v3_small(size: int = 64, dropout: float = 0.2) -> FashionModel:
    """Builds the small MobileNetV3, untrained; 1,528,106 parameters. Arguments as `build`."""
    return FashionModel(mobilenet_v3_small(classes=len(CLASSES), dropout=dropout), size)
