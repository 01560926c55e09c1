"""Adaptive pooling by matrices against torch's own, at every small size."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nas.export.pooling import adaptive_average


@pytest.mark.parametrize("bins", range(1, 8))
def test_every_small_size(bins: int) -> None:
    for size in range(1, 24):
        x = torch.randn(2, 3, size, 5, dtype=torch.double)
        expected = F.adaptive_avg_pool2d(x, (bins, 2))
        torch.testing.assert_close(adaptive_average(x, (bins, 2)), expected, atol=1e-12, rtol=1e-12)


def test_large_sizes_and_three_dimensions() -> None:
    x = torch.randn(1, 1, 1080, 1921, dtype=torch.double)
    expected = F.adaptive_avg_pool2d(x, (7, 13))
    torch.testing.assert_close(adaptive_average(x, (7, 13)), expected, atol=1e-12, rtol=1e-12)
    volume = torch.randn(2, 3, 5, 7, 9, dtype=torch.double)
    expected = F.adaptive_avg_pool3d(volume, (2, 3, 4))
    torch.testing.assert_close(adaptive_average(volume, (2, 3, 4)), expected, atol=1e-12, rtol=1e-12)
