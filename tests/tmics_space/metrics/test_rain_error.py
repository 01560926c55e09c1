from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tmics_space.metrics.rain_error import VISIBLE, error_map, rain_mask, split_error


def test_the_mask_marks_what_rain_changed_in_either_direction() -> None:
    truth = torch.full((3, 1, 5), 0.5)
    change = torch.tensor([0.0, 0.9, 1.1, -1.1, 1.1]) * VISIBLE
    rainy = truth + change
    rainy[:2, 0, 4] = 0.5  # one colour alone: a third of the bound
    assert rain_mask(rainy, truth).tolist() == [[[False, False, True, True, False]]]


def test_the_error_is_divided_by_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    output, truth = torch.rand(2, 3, 6, 8, generator=generator)
    mask = torch.rand(1, 6, 8, generator=generator) < 0.3
    found = split_error(output, truth, mask)
    squared = ((output - truth).double().numpy() ** 2).transpose(1, 2, 0)
    on, off = squared[mask[0].numpy()], squared[~mask[0].numpy()]
    assert (found.on_count, found.off_count) == (on.size, off.size)
    scores = found.scores()
    assert scores["off_rain"] == pytest.approx(off.sum() / squared.sum())
    assert scores["rmse_on_rain"] == pytest.approx(255 * np.sqrt(on.mean()))
    assert scores["rmse_off_rain"] == pytest.approx(255 * np.sqrt(off.mean()))
    twice = (found + found).scores()
    assert twice == pytest.approx(scores)


def test_without_error_or_rain_there_is_no_score() -> None:
    image, dry = torch.rand(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    scores = split_error(image, image, dry).scores()
    assert math.isnan(scores["off_rain"])
    assert math.isnan(scores["rmse_on_rain"])
    assert scores["rmse_off_rain"] == 0
    assert split_error(image, image + 0.1, dry).scores()["off_rain"] == 1


def test_the_map_is_orange_on_the_rain_blue_off_it_and_grey_without() -> None:
    truth = torch.zeros(1, 1, 4)
    output = torch.tensor([[[0.0, 0.0625, -1.0, 1.0]]])
    mask = torch.tensor([[[True, True, True, False]]])
    red, green, blue = error_map(output, truth, mask)[:, 0]
    assert red.tolist() == [0, 128, 255, 64], "half at half of the brightest error, both signs alike"
    assert (blue[1], blue[3]) == (0, 255)
    assert green[3] < green[2]
    grey = error_map(output, truth, None)[:, 0]
    assert grey.tolist() == [[0, 128, 255, 255]] * 3
