"""Cells of NAS-Bench-201 (Dong and Yang, ICLR 2020), in the benchmark's notation or as nested lists."""

from __future__ import annotations

import ast
import re
from typing import Any

from nas import Genotype
from nas.errors import ConfigError
from nas.importing.formats import cell_choices
from nas.importing.python_text import expressions, items, token
from nas.space.primitives import NAS_BENCH_201
from search_spaces.nas_bench_201 import NODES, NOTATION, arch_of, genotype_of

CELL = re.compile(r"(?:\|\w+~\d)+\|(?:\+(?:\|\w+~\d)+\|)*")

write = arch_of


def read(text: str, **options: Any) -> Genotype:
    """Read the genotype of the one cell in a text.

    The text is or contains the benchmark's notation (`|nor_conv_3x3~0|+|...|`), as in `Structure(4 nodes with |...|)`.
    It can also be a list of nodes, each a list of (operation, source).

    Args:
        text: with the cell.
        options: of the space, in place of those of the benchmark's networks (`affine=True`).

    Returns:
        A genotype of the space `nas-bench-201`.

    Raises:
        ConfigError: there is no cell, or there are several.
    """
    found = list(dict.fromkeys(CELL.findall(text)))
    if not found:
        lists = (each for each in expressions(text) if isinstance(each, ast.List | ast.Tuple))
        found = list(dict.fromkeys(map(_notation, lists)))
    if len(found) > 1:
        raise ConfigError(f"there must be one cell in the text, got {len(found)}: {found[0]}, {found[1]}, ...")
    return genotype_of(found[0] if found else text, **options)  # raises if there is no cell


def _notation(cell: ast.List | ast.Tuple) -> str:
    """Write a list of nodes in the benchmark's notation."""
    if cell.elts and all(isinstance(entry, ast.Constant) for entry in cell.elts):
        raise ConfigError(
            f"line {cell.lineno}: each node must be a list of (operation, source), got operations without sources."
            " Projects differ in the order of edges"
        )
    nodes = items(cell, "cell", len(NODES))
    edges = [
        [tuple(map(token, items(edge, "edge", 2)))[::-1] for edge in items(node, f"node {number}", number)]
        for number, node in zip(NODES, nodes, strict=True)
    ]
    names = {name: name for name in NAS_BENCH_201}
    choices = cell_choices("cell", zip(NODES, edges, strict=True), names)  # type: ignore[arg-type]  # pairs, by `items`
    return NOTATION.format(*(choice for label, choice in choices.items() if "<-" in label))
