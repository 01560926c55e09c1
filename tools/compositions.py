"""Write the table of parts that go together in docs/relaxations.md; with --check, only compare.

Two parts go together if a search that has both composes (`nas.declarations.require_composed`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from generated_page import replaced, write
from nas.declarations import EIGENVALUE, LEARNED, Declaration, Part, declaration_of, require_composed
from nas.errors import ConfigError
from nas.registry import kind
from nas.relaxation.relaxation import USUAL

PAGE = Path(__file__).parent.parent / "docs" / "relaxations.md"
BEGIN, END = "<!-- begin: tools/compositions.py -->\n", "<!-- end: tools/compositions.py -->\n"
KINDS = ("wrapper", "regularizer", "derivation", "optimizer", "freezing", "stopping rule")
"""The kinds of parts beside relaxations; a part that declares nothing goes with every other."""


def relaxations() -> list[Part]:
    """The relaxations of this package, with what they declare."""
    return list(_parts("relaxation", USUAL))


def others() -> dict[str, list[Part]]:
    """The parts of other kinds that declare something, by kind."""
    return {each: found for each in KINDS if (found := [*_parts(each, None)])}


def refusal(parts: Sequence[Part]) -> str:
    """Why a search with these parts is refused; empty if it is not. The first part is the relaxation."""
    gives = {fact for part in parts for fact in part.declaration.gives}
    search = [Part("the search", Declaration(gives=frozenset({EIGENVALUE})))]
    if LEARNED in gives:
        both = frozenset({"logits"})
        search.append(Part("the level of the logits", Declaration(both, both, frozenset({LEARNED}))))
    try:
        require_composed([*parts, *search])
    except ConfigError as error:
        return str(error)
    return ""


def pairs() -> Iterator[tuple[Part, Part, str]]:
    """Every two parts that are no relaxations, and why they do not go together under one that goes with each."""
    every = [part for found in others().values() for part in found]
    for i, one in enumerate(every):
        for other in every[i + 1 :]:
            alone = [each for each in relaxations() if not refusal([each, one]) and not refusal([each, other])]
            reasons = [refusal([each, one, other]) for each in alone]
            yield one, other, "" if "" in reasons or not reasons else reasons[0]


def table() -> str:
    """One row a part, one column a relaxation; below, the pairs of other parts that do not go together."""
    columns = relaxations()
    names = [_name(part) for part in columns]
    rows = [f"| part | {' | '.join(f'`{name}`' for name in names)} |", f"|{'---|' * (len(names) + 1)}"]
    for what, parts in others().items():
        for part in parts:
            cells = ["yes" if not refusal([each, part]) else "no" for each in columns]
            rows.append(f"| {what} `{_name(part)}` | {' | '.join(cells)} |")
    apart = [f"- {one.what} and {other.what}: {reason}" for one, other, reason in pairs() if reason]
    if apart:
        rows += ["", "These two do not go together under any relaxation that goes with each:", "", *apart]
    return "\n".join([*rows, ""])


def updated(page: str) -> str:
    """The page with the table of today."""
    return replaced(page, BEGIN, table(), END)


def _parts(what: str, default: Declaration | None) -> Iterator[Part]:
    origins = kind(what).names()
    for name, made in kind(what).working():
        declaration = declaration_of(made, default)
        if origins[name].startswith("nas.") and declaration != Declaration():
            yield Part(f"{what} '{name}'", declaration)


def _name(part: Part) -> str:
    return part.what.partition("'")[2].rstrip("'")


if __name__ == "__main__":
    sys.exit(write(__doc__, PAGE, updated))
