"""The registry of importers, what an import adds, and the choices of a cell."""

from __future__ import annotations

from typing import Any

import pytest

import toy
from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.genotype.file import Genotype
from nas.importing.formats import cell_choices, import_genotype
from nas.importing.python_text import Token
from nas.registry import kind, register


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An importer for texts such as `conv tanh`."""
    monkeypatch.setattr(kind("importer"), "_registered", {})

    @register("importer", "toy-words")
    def read(text: str, **options: Any) -> Genotype:
        first, second = text.split(" ")
        return Genotype(space="toy", choices={"first": first, "second": second}, options=options)


def test_a_genotype_gets_all_options_and_its_source() -> None:
    found = import_genotype("toy-words", "conv tanh\n", "mine.txt")
    assert found.space == toy.toy.name
    assert found.options == {"channels": 4}
    assert found.provenance is not None
    assert found.provenance.source == "mine.txt, read as 'toy-words'"
    assert import_genotype("toy-words", "conv tanh", channels=6).options == {"channels": 6}


def test_what_does_not_fit_names_the_file_and_the_token() -> None:
    with pytest.raises(InvalidFileError, match=r"^mine\.txt: .*'first' 'cov' .*'conv'"):
        import_genotype("toy-words", "cov tanh", "mine.txt")
    with pytest.raises(InvalidFileError, match=r"^mine\.txt: .*'toy' 'chanels'"):
        import_genotype("toy-words", "conv tanh", "mine.txt", chanels=3)


def test_formats_are_found_by_name() -> None:
    assert {"darts", "mmrazor", "nas-bench-201", "nni", "tmics", "toy-words"} <= set(kind("importer").names())
    assert kind("importer").find("tmics").__module__ == "tmics_space.published"
    with pytest.raises(UnknownNameError, match=r"'drats' .*'darts'"):
        kind("importer").find("drats")
    with pytest.raises(ConfigError, match="importer 'toy-words'"):
        register("importer", "toy-words")(lambda text: Genotype(space="toy", choices={}))


def edges(*pairs: tuple[object, object]) -> list[tuple[Token, Token]]:
    return [(Token(source, "here"), Token(operation, "there")) for source, operation in pairs]


def test_choices_of_a_cell() -> None:
    found = cell_choices("c", [(2, edges((1, "b"), (0, "a"))), (3, edges((2, "a")))], {"a": "A", "b": "B"})
    assert list(found.items()) == [("c/2", (0, 1)), ("c/2<-0", "A"), ("c/2<-1", "B"), ("c/3", (2,)), ("c/3<-2", "A")]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((2, "a"), "here: .*from 0 to 1, got 2"),
        ((True, "a"), "here: .*from 0 to 1, got True"),
        ((1, "c"), "there: .*a, b, got 'c'"),
        ((0, "a"), "here: .*node 2 .*got 0"),
    ],
)
def test_what_is_no_cell(pair: tuple[object, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cell_choices("c", [(2, edges((0, "a"), pair))], {"a": "A", "b": "B"})
