"""The dictionaries that NNI exports (`export_top_models(formatter="dict")`, `trainer.export`), as JSON or as printed.

Three forms are supported:

- the DARTS space of NNI's hub: `normal/op_2_0`, `normal/input_2_0`
- NNI's older DARTS example: `normal_n2_p0`, `normal_n2_switch`
- NNI's NAS-Bench-201 space: `cell/0_1`, `cell__0_1`
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nas import Genotype
from nas.errors import ConfigError
from nas.files import parse_yaml
from nas.importing.formats import InEdge, cell_choices
from nas.importing.python_text import Token
from nas.space.primitives import NAS_BENCH_201
from search_spaces.importers.darts import CELLS, INPUTS, OPERATIONS, genotype
from search_spaces.importers.switches import KEY, read_cells

HUB = re.compile(r"(normal|reduce)/(op|input)_(\d+)_(\d+)")
BENCH = re.compile(r"\w+?(?:/|__)(\d)_(\d)")
VALUES = {"width": "channels", "depth": "cells"}
"""Maps value choices of the hub's spaces to options."""

OLD_NAMES = {name.replace("_", ""): name for name in OPERATIONS} | {
    "maxpool": "max_pool_3x3",
    "avgpool": "avg_pool_3x3",
}
BENCH_NAMES = {name.removeprefix("nor_"): name for name in NAS_BENCH_201}
"""Maps NNI's names of operations to those of the space."""


def read(text: str, **options: Any) -> Genotype:
    """Read a genotype from a dictionary.

    Args:
        text: the dictionary.
        options: of the space, in place of those in the dictionary, or else those of the published networks.

    Returns:
        A genotype of the space `darts` or `nas-bench-201`.

    Raises:
        ConfigError: the dictionary has another form; the message names the key and the token.
    """
    data = parse_yaml(text, "dictionary")  # JSON, and Python's dictionaries of texts, are YAML
    if not isinstance(data, dict) or not data:
        raise ConfigError(f"the text must be a dictionary of labels and choices, got {data!r:.40}")
    tokens = {str(key): Token(value, str(key)) for key, value in data.items()}
    values = {VALUES[key]: tokens.pop(key).value for key in VALUES if key in tokens}
    for pattern, build in ((HUB, _hub), (KEY, _example), (BENCH, _bench)):
        if pattern.fullmatch(next(iter(tokens), "")):
            for key in tokens:
                if not pattern.fullmatch(key):
                    raise ConfigError(f"labels of this space must be like '{next(iter(tokens))}', got '{key}'")
            return build(tokens, {**values, **options})
    raise ConfigError(f"labels must be those of DARTS or NAS-Bench-201 in NNI, got '{next(iter(data))}'")


def _hub(tokens: Mapping[str, Token], options: Mapping[str, Any]) -> Genotype:
    def edge(cell: str, node: int, number: int) -> InEdge:
        source, operation = (f"{cell}/{part}_{node}_{number}" for part in ("input", "op"))
        for key in (source, operation):
            if key not in tokens:
                raise ConfigError(f"'{key}' must be in the dictionary, got no such key")
        value = tokens[source].value
        single = value[0] if isinstance(value, list) and len(value) == 1 else value
        return Token(single, source), tokens[operation]

    last = {cell: max((int(key.split("_")[1]) for key in tokens if key.startswith(cell)), default=0) for cell in CELLS}
    cells = {cell: [[edge(cell, n, i) for i in (0, 1)] for n in range(INPUTS, last[cell] + 1)] for cell in CELLS}
    return genotype(cells, OPERATIONS, options)


def _example(tokens: Mapping[str, Token], options: Mapping[str, Any]) -> Genotype:
    switches, edges = {}, {}
    for key, found in tokens.items():
        if key.endswith("_switch"):
            if not isinstance(found.value, list):
                raise found.refused("a list of the edges that the node keeps")
            switches[key.removesuffix("_switch")] = [Token(name, key) for name in found.value]
        elif found.value != []:  # empty for an edge that is not kept
            edges[key] = found
    return genotype(read_cells(edges, switches), OLD_NAMES, options)


def _bench(tokens: Mapping[str, Token], options: Mapping[str, Any]) -> Genotype:
    found = {tuple(map(int, BENCH.fullmatch(key).groups())): key for key in tokens}  # type: ignore[union-attr]

    def edges(node: int) -> Iterator[InEdge]:
        for source in range(node):
            if (source, node) not in found:
                raise ConfigError(f"the edge from {source} to {node} must be in the dictionary, got no such key")
            key = found[source, node]
            yield Token(source, key), tokens[key]

    choices = cell_choices("cell", ((node, edges(node)) for node in (1, 2, 3)), BENCH_NAMES)
    return Genotype(space="nas-bench-201", choices=choices, options={"affine": True, **options})
