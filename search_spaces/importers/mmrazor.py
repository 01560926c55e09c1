"""The subnets of DARTS cells that mmrazor exports as YAML: `normal_n2: {chosen: [normal_n2_p0, normal_n2_p1]}`."""

from __future__ import annotations

from typing import Any

from nas import Genotype
from nas.errors import ConfigError
from nas.files import parse_yaml
from nas.literals import Token
from search_spaces.importers.darts import OPERATIONS, genotype
from search_spaces.importers.switches import KEY, read_cells

NAMES = {**OPERATIONS, "zero": "none"}
"""Our names of operations by mmrazor's."""


def read(text: str, **options: Any) -> Genotype:
    """The genotype in a subnet file (`fix_subnet`), of the space `darts`.

    The options are those of the published networks, unless given otherwise. Raises `ConfigError` that names the key and
    the token.
    """
    data = parse_yaml(text, "subnet")
    if not isinstance(data, dict) or not data:
        raise ConfigError("expected a mapping of names to {chosen: [...]}")
    edges, switches = {}, {}
    for name, entry in data.items():
        match = KEY.fullmatch(str(name))
        if match is None or match[4]:
            raise ConfigError(f"'{name}' is no part of a DARTS cell, expected names like normal_n2 and normal_n2_p0")
        chosen = entry.get("chosen") if isinstance(entry, dict) else None
        if not isinstance(chosen, list) or not chosen:
            raise ConfigError(f"{name}: found {entry!r}, expected {{chosen: [...]}}")
        tokens = [Token(value, str(name)) for value in chosen]
        if match[3] is None:
            switches[name] = tokens
        elif len(tokens) > 1:
            raise tokens[1].refused("one operation")
        else:
            edges[name] = tokens[0]
    return genotype(read_cells(edges, switches), NAMES, options)
