"""Raw numbers to standardised ones, inside the graph, so that a device feeds what it has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.errors import DataError, ModelError


class Standardise(nn.Module):
    """Zero mean and unit variance a feature; a missing value (NaN) becomes 0, the training mean.

    The scales are buffers and travel with the checkpoint; `fit` sets them. Outliers end at eight standard deviations.

    Args:
        features: Number of features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Sets the scales from raw training rows `[..., features]`, missing values left out.

        A feature that is constant, or always missing, keeps the deviation 1.

        Raises:
            DataError: If the last dimension is not the number of features, or a value is infinite.
        """
        if values.shape[-1] != self.mean.numel():
            raise DataError(
                f"{values.shape[-1]} features are given, the model has {self.mean.numel()}", "give them in its order."
            )
        if torch.isinf(values).any():
            raise DataError("a value is infinite", "replace it by a number, or by NaN if it is missing.")
        # Double precision: amounts reach millions, and their squares lose digits in float32.
        rows = values.reshape(-1, values.shape[-1]).double()
        known = ~torch.isnan(rows)
        count = known.sum(dim=0).clamp(min=1)
        mean = torch.where(known, rows, 0).sum(dim=0) / count
        variance = torch.where(known, rows - mean, 0).square().sum(dim=0) / count
        self.mean.copy_(mean)
        self.std.copy_(torch.where(variance > 0, variance.sqrt(), 1))

    def forward(self, values: Tensor) -> Tensor:
        """Maps raw float32 `values` `[..., features]` to the same shape.

        Raises:
            ModelError: If the last dimension is not the number of features.
        """
        # Without this a single feature would be spread over all of them.
        if values.shape[-1] != self.mean.numel():
            raise ModelError(
                f"{values.shape[-1]} features are fed to a model of {self.mean.numel()}",
                "set the number of features in model.arguments.",
            )
        scaled = (values - self.mean) / self.std
        # Missing values first: minimum and maximum of a NaN are not the same in every runtime.
        return torch.where(torch.isnan(scaled), 0.0, scaled).clamp(-8.0, 8.0)
