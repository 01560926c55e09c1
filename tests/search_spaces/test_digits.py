from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.testing import SearchSpaceTests
from search_spaces.digits import digits_space


class TestDigits(SearchSpaceTests):
    space = digits_space
    options: ClassVar[Mapping[str, Any]] = {"channels": 2, "nodes": 2}
    trials = 3

    def example_input(self) -> Tensor:
        return torch.randn(2, 1, 8, 8)
