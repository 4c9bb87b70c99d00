"""Rows in groups, each group through a matrix of its own: what experts compute once tokens are sorted by expert.

The operator is the one that transformers' MoE layers call; defined here in ATen calls, so that a workload with it is replayed, and
compiled, where transformers is not installed.
"""

import torch

NAME = "transformers.grouped_mm_fallback.default"


def grouped_matmul(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Rows times their group's matrix: x [rows, inputs], weight [groups, inputs, outputs], ends [groups] ascending; [rows, outputs]. Pure.

    Group g has the rows from the end of the group before up to ends[g]. Rows behind the last end are zero.
    """
    rows = torch.arange(x.shape[0], dtype=torch.int64, device=x.device)
    group = (ends.to(torch.int64) <= rows.unsqueeze(1)).to(torch.int64).sum(1)
    chosen = weight[group.clamp(0, weight.shape[0] - 1)]
    product = torch.bmm(x.unsqueeze(1), chosen).squeeze(1)
    return torch.where((group < weight.shape[0]).unsqueeze(1), product, torch.zeros_like(product))
