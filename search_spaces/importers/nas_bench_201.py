"""Cells of NAS-Bench-201 (Dong and Yang, ICLR 2020): the benchmark's notation, also within a text, and nested lists."""

from __future__ import annotations

import ast
import re
from typing import Any

from nas import Genotype
from nas.errors import ConfigError
from nas.importing import cell_choices
from nas.literals import expressions, items, token
from nas.primitives import NAS_BENCH_201
from search_spaces.nas_bench_201 import NODES, NOTATION, arch_of, genotype_of

CELL = re.compile(r"(?:\|\w+~\d)+\|(?:\+(?:\|\w+~\d)+\|)*")

write = arch_of


def read(text: str, **options: Any) -> Genotype:
    """The genotype of the one cell in a text, of the space `nas-bench-201`.

    The cell is written as by the benchmark (`|nor_conv_3x3~0|+|...|`), alone or inside a text such as `Structure(4
    nodes with |...|)`; or as the list of its nodes, each a list of (operation, source). The options are those of the
    benchmark's networks (`affine=True`), unless given otherwise. Raises `ConfigError` for no or several cells.
    """
    found = list(dict.fromkeys(CELL.findall(text)))
    if not found:
        lists = (each for each in expressions(text) if isinstance(each, ast.List | ast.Tuple))
        found = list(dict.fromkeys(map(_notation, lists)))
    if len(found) > 1:
        raise ConfigError(f"there must be one cell in the text, got {len(found)}: {found[0]}, {found[1]}, ...")
    return genotype_of(found[0] if found else text, **options)  # which says what is wrong


def _notation(cell: ast.List | ast.Tuple) -> str:
    """The benchmark's notation of a list of nodes."""
    if cell.elts and all(isinstance(entry, ast.Constant) for entry in cell.elts):
        raise ConfigError(
            f"line {cell.lineno}: a list without sources does not say which edge each operation is of, and projects"
            " differ in that; expected a list of (operation, source) for each node"
        )
    nodes = items(cell, "cell", len(NODES))
    edges = [
        [tuple(map(token, items(edge, "edge", 2)))[::-1] for edge in items(node, f"node {number}", number)]
        for number, node in zip(NODES, nodes, strict=True)
    ]
    names = {name: name for name in NAS_BENCH_201}
    choices = cell_choices("cell", zip(NODES, edges, strict=True), names)  # type: ignore[arg-type]  # pairs, as asked
    return NOTATION.format(*(choice for label, choice in choices.items() if "<-" in label))
