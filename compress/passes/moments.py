"""Mean and second moment of what goes into a layer: which directions of its inputs rows really use."""

from __future__ import annotations

import torch


class Moments:
    """Sums over the last dimension of a value, in double precision; their size is that of one row, not of all rows."""

    def __init__(self) -> None:
        self.count = 0
        self._sums = torch.zeros(())
        self._products = torch.zeros(())

    def update(self, value: torch.Tensor) -> None:
        """Takes in one batch, `[..., channels]`."""
        flat = value.detach().reshape(-1, value.shape[-1])
        self.count += len(flat)
        self._sums = self._sums + flat.double().sum(0)
        # The product of one batch in its own precision: in double it would cost more than all the rest.
        self._products = self._products + (flat.T @ flat).double()

    @property
    def mean(self) -> torch.Tensor:
        """`[channels]`, double."""
        return self._sums / max(self.count, 1)

    @property
    def second(self) -> torch.Tensor:
        """The second moment `E[x x^T]`, `[channels, channels]`, double."""
        return self._products / max(self.count, 1)

    @property
    def covariance(self) -> torch.Tensor:
        """The second moment around the mean, `[channels, channels]`, double."""
        return self.second - torch.outer(self.mean, self.mean)
