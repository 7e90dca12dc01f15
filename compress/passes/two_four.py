"""2:4 sparsity: of every four neighbours along what a layer sums over, two at most are not zero."""

from __future__ import annotations

import torch

GROUP, KEPT = 4, 2
# Numbers in the systems that are solved together: 64 MiB of them.
_AT_ONCE = 1 << 23


def fits(weight: torch.Tensor) -> bool:
    """Whether a weight `[out, in, ...]` falls into groups of four along its inputs."""
    return weight.dim() >= 2 and weight.shape[1] % GROUP == 0


def mask_2_4(score: torch.Tensor) -> torch.Tensor:
    """Returns which positions stay: the best two of each group of four along dimension 1, the earlier of equal ones.

    Args:
        score: `[out, in, ...]`, not negative; `in` is a multiple of four.
    """
    last = score.movedim(1, -1)
    groups = last.reshape(-1, GROUP)
    order = torch.argsort(groups, dim=1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter(1, order[:, :KEPT], True)
    return mask.reshape(last.shape).movedim(-1, 1)


def is_2_4(weight: torch.Tensor, dimension: int = 1) -> bool:
    """Whether no group of four along a dimension has more than two values that are not zero."""
    if weight.dim() < 2 or weight.shape[dimension] % GROUP:
        return False
    groups = weight.movedim(dimension, -1).reshape(-1, GROUP)
    return bool((groups.ne(0).sum(1) <= KEPT).all())


def fitted(weight: torch.Tensor, mask: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Returns the sparse weight whose outputs are closest to those of the dense one over the rows.

    For each output, with `S` the second moment of the inputs and `m` what stays of its row, the least squares over
    the rows are solved: `S[m, m] w' = S[m, :] w` (the exact form of what Frantar and Alistarh 2023, arXiv:2301.00774,
    do step by step).

    Args:
        weight: `[out, in]`.
        mask: `[out, in]`, as many in each row.
        second: `[in, in]`, double.
    """
    wide = weight.detach().double()
    # Inputs that never vary leave the answer open: it is kept near the old weight's size.
    damped = second + torch.eye(len(second), dtype=torch.float64) * float(second.diagonal().mean()) * 1e-3
    targets = wide @ damped
    places = mask.nonzero()[:, 1].reshape(len(mask), -1)
    found = torch.empty(places.shape, dtype=torch.float64)
    step = max(1, _AT_ONCE // places.shape[1] ** 2)
    for start in range(0, len(places), step):
        rows = slice(start, start + step)
        own = places[rows]
        lower = torch.linalg.cholesky(damped[own[:, :, None], own[:, None, :]])
        found[rows] = torch.cholesky_solve(targets[rows].gather(1, own)[:, :, None], lower).squeeze(2)
    return torch.zeros_like(wide).scatter_(1, places, found).to(weight.dtype)
