"""A weight taken apart by what its outputs are made of, the most important direction first."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Share of the mean variance that every direction has at least: no direction of the inputs is quite impossible.
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Directions of a layer's outputs.

    Attributes:
        basis: `[out, k]`, double, orthonormal columns; `k` is the smaller side of the weight.
        strength: `[k]`, double, descending: the standard deviation of the outputs along each direction.
    """

    basis: torch.Tensor
    strength: torch.Tensor

    @property
    def energy(self) -> torch.Tensor:
        """`[k]`: the share of the outputs' variance that the first 1, 2, … directions hold together."""
        squares = self.strength.square()
        return squares.cumsum(0) / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)

    def rank_for(self, energy: float) -> int:
        """Returns the smallest rank that keeps a share of the variance."""
        return min(int((self.energy < energy).sum()) + 1, len(self.strength))

    def factors(self, weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the best pair of weights of a rank, `[rank, in]` and `[out, rank]`, in the weight's own precision.

        Their product is the weight projected onto the first directions. Each direction's size is dealt to both by its
        square root: what is between the two then has no few channels that dwarf all others when it is quantized.
        """
        basis = self.basis[:, :rank]
        size = self.strength[:rank]
        size = torch.where(size > self.strength[0] * 1e-6, size, torch.ones_like(size)).sqrt()
        narrow = (basis.T @ weight.double()) / size[:, None]
        return narrow.to(weight.dtype).contiguous(), (basis * size).to(weight.dtype).contiguous()


def spectrum(weight: torch.Tensor, covariance: torch.Tensor | None = None) -> Spectrum:
    """Takes a weight apart so that cutting off behind any rank loses the least of its outputs.

    With rows, the loss is that of the outputs over these rows: with `C` the covariance of the inputs, the left singular
    vectors of `W C^(1/2)` are taken (truncation-aware whitening, Wang et al. 2024, arXiv:2403.07378, in the form that
    needs no inverse). Without rows, all inputs count alike: the truncated singular value decomposition of the weight.

    Args:
        weight: `[out, in]`.
        covariance: Of the inputs, `[in, in]`, double; None where no rows are known.
    """
    wide = weight.detach().double()
    if covariance is not None:
        values, vectors = torch.linalg.eigh(covariance)
        floor = float(values.clamp(min=0).mean()) * _RIDGE
        # Inputs that never change say nothing; then all of them count alike.
        wide = wide @ (vectors * values.clamp(min=floor).sqrt()) if floor else wide
    basis, strength, _ = torch.linalg.svd(wide, full_matrices=False)
    # A singular vector's sign is the library's whim; the same model must give the same bytes.
    signs = torch.sign(basis.gather(0, basis.abs().argmax(0, keepdim=True)))
    return Spectrum(basis * signs, strength)
