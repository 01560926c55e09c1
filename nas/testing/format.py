"""What every exporter must satisfy, with the importer of the same name: a test class to inherit from.

>>> class TestWords(FormatTests):
...     format = "words"
...     space = "chain"
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import torch

from nas.errors import ConfigError, NASError
from nas.genotype.file import Genotype
from nas.importing.formats import export_genotype, import_genotype
from nas.space.definition import SearchSpace, find_space

SAMPLES = 4


class FormatTests:
    """Conformance tests of an exporter and its importer: subclass it in a test module, as `Test...`, and name them."""

    format: ClassVar[str]
    """The registered name of both."""
    space: ClassVar[SearchSpace | str]
    """A registered search space whose genotypes the exporter writes."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options of the space."""

    def test_a_genotype_has_one_text(self) -> None:
        for genotype, first in self._written():
            second = export_genotype(self.format, genotype)
            assert isinstance(first, str), f"an exporter must return a text, got {first!r}"
            assert first.strip(), f"the text of {genotype.choices} is empty"
            assert first == second, f"the same genotype is written {first!r}, then {second!r}"

    def test_what_is_written_is_read_again(self) -> None:
        for genotype, text in self._written():
            found = import_genotype(self.format, text, **self.options).choices
            assert found == genotype.choices, f"{genotype.choices} is read as {found}"

    def test_other_texts_are_refused_in_one_line(self) -> None:
        for text in ("", "?", "{", "Genotype(", "a: [b"):
            reason = self._refusal(text)
            assert reason, f"the text {text!r} must be refused with a NASError"
            assert "\n" not in reason, f"the reason must be one line, got {reason}"

    def _refusal(self, text: str) -> str:
        try:
            import_genotype(self.format, text, **self.options)
        except NASError as error:
            return str(error)
        return ""

    def _written(self) -> list[tuple[Genotype, str]]:
        """Random genotypes with their texts, without those that the format cannot state."""
        space = type(self).space
        found = find_space(space) if isinstance(space, str) else space
        generator = torch.Generator().manual_seed(0)
        written = []
        for _ in range(SAMPLES):
            genotype = found.sample(generator, **self.options)
            with suppress(ConfigError):
                written.append((genotype, export_genotype(self.format, genotype)))
        assert written, f"the format must state some genotypes of '{found.name}', got none of {SAMPLES}"
        return written
