"""What every model must satisfy: a test class to inherit from.

>>> class TestSmallChain(ModelTests):
...     model = "small-chain"
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from nas.files import convert
from nas.run.card import missing_sections, read_card
from nas.run.config import load_config
from nas.run.folder import CONFIG
from nas.run.retraining import load_network
from nas.run.task import TASKS
from nas.testing.subject import Subject, made, tensors


class ModelTests:
    """Conformance tests of a model: subclass it in a test module, as `Test...`, and name the model."""

    model: ClassVar[Subject]
    """A registered name, or a function that returns the path of the folder."""

    def test_the_card_has_its_headings(self) -> None:
        missing = missing_sections(read_card(self._folder()).text)
        assert not missing, f"the card must have the heading '{missing[0]}'"

    def test_the_card_and_the_configuration_name_one_task(self) -> None:
        folder = self._folder()
        card, task = read_card(folder).task, load_config(folder / CONFIG).task["name"]
        assert card == task, f"the card names the task '{card}', the configuration '{task}'"

    def test_the_network_has_the_parameters_that_the_card_states(self) -> None:
        folder = self._folder()
        found = sum(parameter.numel() for parameter in load_network(folder).parameters())  # it compares the checksum
        stated = read_card(folder).parameters
        assert found == stated, f"the card states {stated:,} parameters, the network has {found:,}"

    def test_outputs_are_finite_and_repeatable(self) -> None:
        folder = self._folder()
        entry = dict(load_config(folder / CONFIG).task)
        task = TASKS.find(entry.pop("name"), "task")
        example = task(convert(entry, task.Config, "task")).example()
        outputs = []
        for _ in range(2):
            with torch.no_grad():
                outputs.append(tensors(load_network(folder)(*example)))
        for first, second in zip(*outputs, strict=True):
            assert first.isfinite().all(), "the outputs for the task's example must be finite"
            assert torch.equal(first, second), "two loads of the model give different outputs"

    def _folder(self) -> Path:
        return Path(made("model", type(self).model))
