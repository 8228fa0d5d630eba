import torch
from torch.nn import functional as F

from nni_s3d.growth.graph.row_norm import RowNorm

ROWS = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_rows_over_their_size_are_what_weight_norm_computes():
    norm = RowNorm("v", "g", False, 0.0)
    assert norm.centre(ROWS) is ROWS
    weight = torch._weight_norm(ROWS, torch.ones(4, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(ROWS / norm.size(ROWS)[:, None, None], weight)


def test_centred_rows_over_their_size_are_what_weight_standardisation_computes():
    norm = RowNorm("v", "g", True, 0.1)
    weight = F.batch_norm(ROWS.reshape(1, 4, -1), None, None, None, training=True, eps=0.1).reshape_as(ROWS)
    torch.testing.assert_close(norm.centre(ROWS) / norm.size(ROWS)[:, None, None], weight)
