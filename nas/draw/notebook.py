"""HTML of genotypes and supernets in notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from nas.draw.rendering import render
from nas.errors import NASError, printable
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.space.definition import find_space

if TYPE_CHECKING:
    from nas.supernet import Supernet


SCROLLING = '<div style="overflow-x: auto">'
"""Opening tag of an element that scrolls if its content is too wide."""


def genotype_svg(genotype: Genotype) -> str | None:
    """Return the SVG picture of a genotype, or None if its space is unknown or does not fit."""
    try:
        return render(find_space(genotype.space).describe(**genotype.options), genotype, "svg")
    except NASError:
        return None


def genotype_html(genotype: Genotype) -> str:
    """Return the picture of a genotype as HTML, or a table of its choices if it cannot be drawn."""
    margins = genotype.provenance.margins if genotype.provenance else {}
    rows = ((label, _text(choice), _share(margins.get(label))) for label, choice in genotype.contested().items())
    title = f"<b>Genotype</b> of the search space <code>{_escaped(genotype.space)}</code>"
    picture = genotype_svg(genotype)
    return f"{SCROLLING}{title}{picture or _table(('decision', 'chosen', 'margin'), rows)}</div>"


def supernet_html(supernet: Supernet) -> str:
    """Return HTML with the size of a supernet and, for each decision, the leading candidate and the mixing weights."""
    rows = []
    mixing = supernet.mixing_weights()
    for label, decision in supernet.decisions.items():
        if label in mixing:
            weights = dict(zip(decision.candidates, mixing[label].tolist(), strict=True))
            leader = max(weights, key=lambda name: weights[name])
            shares = ", ".join(f"{name} {_share(weight)}" for name, weight in weights.items())
            rows.append((label, str(leader), shares))
        else:
            rows.append((label, f"{decision.keep} of {len(decision.candidates)} in-edges", ""))
    count = sum(parameter.numel() for parameter in supernet.network.parameters())
    name = f"<code>{_escaped(supernet.space.name)}</code>"
    title = f"<b>Supernet</b> of the search space {name}: {count:,} operation weights, {len(rows)} decisions"
    return f"{SCROLLING}{title}{_table(('decision', 'leads', 'mixing weights'), rows)}</div>"


def _table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    """A text that may come from a file, without markup and without control characters."""
    return escape(printable(text))


def _text(choice: Choice) -> str:
    return ", ".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)


def _share(weight: float | None) -> str:
    return "" if weight is None else f"{weight:.2f}"
