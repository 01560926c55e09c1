"""The differences of two genotypes, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from nas.genotype.file import Genotype
from nas.space.definition import find_space


class Change(NamedTuple):
    """A field and its two values as text; None if a genotype lacks it."""

    field: str
    before: str | None
    after: str | None


def diff(before: Genotype, after: Genotype) -> list[Change]:
    """Return the fields in which two genotypes differ: the space, its options with defaults, the choices.

    Provenance and the order of fields do not count.

    Args:
        before: a genotype of a registered space.
        after: another one, perhaps of a different space.

    Raises:
        UnknownNameError: a space or option is unknown.
    """
    a, b = _fields(before), _fields(after)
    return [Change(field, a.get(field), b.get(field)) for field in {**a, **b} if a.get(field) != b.get(field)]


def _fields(genotype: Genotype) -> dict[str, str]:
    options = find_space(genotype.space).options(**genotype.options)
    return {"space": genotype.space, **_named("options", options), **_named("choices", genotype.choices)}


def _named(head: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{head}.{name}": _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
