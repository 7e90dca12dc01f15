"""Convolutional networks to cut: small ones of every kind of coupling, and ResNet-18."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Residual additions, batch normalisation, a bottleneck: a small ResNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.a = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.down = nn.Conv2d(8, 12, 1, stride=2)
        self.b = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12))
        self.head = nn.Linear(12, 4)

    def forward(self, image):
        value = self.stem(image)
        value = F.relu(value + self.a(value))
        value = F.relu(self.down(value) + self.b(value))
        return self.head(F.adaptive_avg_pool2d(value, 1).flatten(1))


class Dense(nn.Module):
    """Concatenations that grow, and a skip joined behind two ways of upsampling."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.grow = nn.ModuleList(nn.Conv2d(6 + 4 * step, 4, 3, padding=1) for step in range(3))
        self.norm = nn.BatchNorm2d(18)
        self.low = nn.Conv2d(18, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 5, 2, stride=2)
        self.out = nn.Conv2d(18 + 5 + 8, 7, 1)
        self.head = nn.Linear(7, 3)

    def forward(self, image):
        value = self.first(image)
        for layer in self.grow:
            value = torch.cat([value, F.relu(layer(value))], dim=1)
        value = self.norm(value)
        low = F.relu(self.low(value))
        wide = F.interpolate(low, scale_factor=2.0, mode="bilinear")
        value = self.out(torch.cat([value, self.up(low), wide], dim=1))
        return self.head(value.mean(dim=(2, 3)))


class DenseBlock(nn.Module):
    """DenseNet (Huang et al. 2017, arXiv:1608.06993): bottlenecks that read all before them, and a transition."""

    def __init__(self, growth=4, layers=3):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        widths = [8 + growth * step for step in range(layers + 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth),
                nn.ReLU(),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
            for width in widths[:-1]
        )
        self.norm, self.transition = nn.BatchNorm2d(widths[-1]), nn.Conv2d(widths[-1], widths[-1] // 2, 1, bias=False)
        self.last, self.head = nn.BatchNorm2d(widths[-1] // 2), nn.Linear(widths[-1] // 2, 3)

    def forward(self, image):
        found = [self.first(image)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        value = F.avg_pool2d(self.transition(F.relu(self.norm(torch.cat(found, 1)))), 2)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.last(value)), 1).flatten(1))


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597): down, up, and what was joined on the way; a map comes out."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.deep = _twice(3, 6), _twice(6, 10), _twice(10, 14)
        self.up_two, self.up_one = nn.ConvTranspose2d(14, 10, 2, stride=2), nn.ConvTranspose2d(10, 6, 2, stride=2)
        self.back_two, self.back_one = _twice(20, 10), _twice(12, 6)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, image):
        one = self.one(image)
        two = self.two(F.max_pool2d(one, 2))
        deep = self.deep(F.max_pool2d(two, 2))
        two = self.back_two(torch.cat([two, self.up_two(deep)], dim=1))
        return self.out(self.back_one(torch.cat([one, self.up_one(two)], dim=1)))


def _twice(before, behind):
    layers = []
    for width in (before, behind):
        layers += [nn.Conv2d(width, behind, 3, padding=1, bias=False), nn.BatchNorm2d(behind), nn.ReLU()]
    return nn.Sequential(*layers)


class Grouped(nn.Module):
    """Grouped and depthwise convolutions with a multiplier, channel shuffle, squeeze-and-excitation."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 12, 1)
        self.b = nn.Conv2d(12, 24, 3, padding=1, groups=3)
        self.c = nn.Conv2d(24, 48, 3, padding=1, groups=24)
        self.squeeze, self.excite = nn.Conv2d(48, 6, 1), nn.Conv2d(6, 48, 1)
        self.last = nn.Conv2d(48, 5, 1)

    def forward(self, image):
        value = shuffled(F.relu(self.b(F.relu(self.a(image)))), 3)
        value = self.c(value)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(value, 1)))))
        return self.last(value * gate).mean((2, 3))


def shuffled(value, groups):
    """Channels of a group apart, those of one place together (Zhang et al. 2018, arXiv:1707.01083)."""
    rows, channels, height, width = value.shape
    value = value.view(rows, groups, channels // groups, height, width)
    return value.transpose(1, 2).reshape(rows, channels, height, width)


class Halves(nn.Module):
    """Chunk and split of channels: a branch on one half (ShuffleNetV2), steps from piece to piece (Res2Net)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        )
        self.middle = nn.Conv2d(16, 15, 1)
        self.steps = nn.ModuleList(nn.Conv2d(5, 5, 3, padding=1) for _ in range(2))
        self.uneven, self.one, self.other = nn.Conv2d(15, 10, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(6, 3, 1)

    def forward(self, image):
        left, right = self.first(image).chunk(2, dim=1)
        value = F.relu(self.middle(torch.cat([left, self.branch(right)], dim=1)))
        first, *others = torch.split(value, 5, dim=1)
        found = [first]
        for piece, layer in zip(others, self.steps, strict=True):
            found.append(F.relu(layer(piece + found[-1])))
        one, other = torch.split(self.uneven(torch.cat(found, dim=1)), [4, 6], dim=1)
        return self.last(torch.tanh(self.one(one)) * torch.sigmoid(self.other(other))).mean((2, 3))


class Groups(nn.Module):
    """Group normalisation between convolutions, a flattened feature map, an einsum."""

    def __init__(self, width=12, groups=3):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, width, 3), nn.GroupNorm(groups, width), nn.Conv2d(width, 6, 3)
        self.c, self.mix = nn.Linear(6 * 16, 10), nn.Parameter(torch.zeros(10, 4))

    def forward(self, image):
        value = F.relu(self.b(self.norm(self.a(image)))).flatten(1)
        return torch.einsum("bi,io->bo", self.c(value), self.mix)


class BasicBlock(nn.Module):
    """Two convolutions and the shortcut around them."""

    def __init__(self, before, behind, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, behind, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(behind)
        self.conv2 = nn.Conv2d(behind, behind, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(behind)
        self.downsample = None
        if stride > 1 or before != behind:
            self.downsample = nn.Sequential(nn.Conv2d(before, behind, 1, stride, bias=False), nn.BatchNorm2d(behind))

    def forward(self, value):
        straight = value if self.downsample is None else self.downsample(value)
        return F.relu(straight + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(value))))))


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv:1512.03385); parameters are named as in the well-known checkpoints."""

    def __init__(self, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        widths = [64, 64, 128, 256, 512]
        for stage in range(1, 5):
            first = BasicBlock(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, BasicBlock(widths[stage], widths[stage], 1)))
        self.fc = nn.Linear(512, classes)

    def forward(self, image):
        value = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        value = self.layer4(self.layer3(self.layer2(self.layer1(value))))
        return self.fc(F.adaptive_avg_pool2d(value, 1).flatten(1))
