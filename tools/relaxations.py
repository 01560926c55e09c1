"""Write the tables of relaxations and wrappers in docs/relaxations.md, by the registry; with --check, only compare."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from generated_page import replaced, write
from nas.declarations import EVERY_CANDIDATE, LEARNED, ONE_PATH, SAME_CANDIDATES, SHARES, TWO_PATHS, declaration_of
from nas.registry import kind
from nas.relaxation.relaxation import USUAL

PAGE = Path(__file__).parent.parent / "docs" / "relaxations.md"
BEGIN, END = "<!-- begin: tools/relaxations.py, {} -->\n", "<!-- end -->\n"
COMPUTED = (EVERY_CANDIDATE, TWO_PATHS, ONE_PATH)
HEADER = (
    "| `name` | paper | samples | weights sum to 1 | schedule | computes | logits are learned | unrolled responses |",
    "|---|---|---|---|---|---|---|---|",
)


WRAPPERS = (
    "| `name` | paper | reads | writes | schedule | needs | derived networks inherit weights |",
    "|---|---|---|---|---|---|---|",
)


def updated(page: str) -> str:
    """The page with the tables of today."""
    for name, header, row in (("relaxation", HEADER, _row), ("wrapper", WRAPPERS, _wrapper)):
        rows = [row(each, made) for each, made in kind(name).working() if made.__module__.startswith("nas.")]
        page = replaced(page, BEGIN.format(name), "\n".join([*header, *rows]) + "\n", END)
    return page


def _wrapper(name: str, wrapper: Any) -> str:
    declared = declaration_of(wrapper)
    facts = [", ".join(sorted(facts)) or "nothing" for facts in (declared.reads, declared.writes, declared.needs)]
    cells = (f"`{name}`", _paper(wrapper), *facts[:2], wrapper.schedule, facts[2], _word(not wrapper.reshapes))
    return f"| {' | '.join(cells)} |"


def _row(name: str, relaxation: Any) -> str:
    gives = declaration_of(relaxation, USUAL).gives
    computed = next((fact for fact in COMPUTED if fact in gives), "")
    cells = (
        f"`{name}`",
        _paper(relaxation),
        _word(hasattr(relaxation, "draw")),
        _word(SHARES in gives),
        _schedule(relaxation),
        computed.replace(" computed", ""),
        _word(LEARNED in gives),
        _word({LEARNED, SAME_CANDIDATES} <= gives),
    )
    return f"| {' | '.join(cells)} |"


def _word(value: bool) -> str:
    return "yes" if value else "no"


def _paper(relaxation: Any) -> str:
    """The first reference of the docstring: it ends with a line that ends with a full stop or a semicolon."""
    _, _, references = (inspect.getdoc(relaxation) or "").partition("References:\n")
    first = re.split(r"[.;]$", references, maxsplit=1, flags=re.MULTILINE)[0]
    return " ".join(first.partition(";")[0].split())


def _schedule(relaxation: Any) -> str:
    """The arguments that change over a search: those of which there is a final value."""
    parameters = inspect.signature(relaxation).parameters
    found = [
        f"`{name}` from {parameter.default:g} to {parameters[f'final_{name}'].default:g}, linear"
        for name, parameter in parameters.items()
        if f"final_{name}" in parameters
    ]
    return ", ".join(found) or "none"


if __name__ == "__main__":
    sys.exit(write(__doc__, PAGE, updated))
