"""Derivation at random: uniform, and valid."""

from __future__ import annotations

import torch

from conditional import DECISIONS, require_uniform, valid
from nas.derive.random import choose_randomly


def test_random_choices_are_uniform_and_valid() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [choose_randomly(DECISIONS, generator) for _ in range(600)]
    assert all(map(valid, drawn))
    require_uniform(drawn)


def test_random_choices_are_a_function_of_the_generator() -> None:
    first, second, other = (choose_randomly(DECISIONS, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert first == second != other
