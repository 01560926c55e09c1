"""The subnets of DARTS cells that mmrazor exports as YAML: `normal_n2: {chosen: [normal_n2_p0, normal_n2_p1]}`."""

from __future__ import annotations

from typing import Any

from nas import Genotype
from nas.errors import ConfigError
from nas.files import parse_yaml
from nas.importing.python_text import Token
from search_spaces.importers.darts import OPERATIONS, genotype
from search_spaces.importers.switches import KEY, read_cells

NAMES = {**OPERATIONS, "zero": "none"}
"""Maps mmrazor's names of operations to those of the space."""


def read(text: str, **options: Any) -> Genotype:
    """Read a genotype from a subnet file (`fix_subnet`).

    Args:
        text: of the file.
        options: of the space, in place of those of the published networks.

    Returns:
        A genotype of the space `darts`.

    Raises:
        ConfigError: the file has another form; the message names the key and the token.
    """
    data = parse_yaml(text, "subnet")
    if not isinstance(data, dict) or not data:
        raise ConfigError(f"a subnet must be a mapping of names to {{chosen: [...]}}, got {data!r:.40}")
    edges, switches = {}, {}
    for name, entry in data.items():
        match = KEY.fullmatch(str(name))
        if match is None or match[4]:
            raise ConfigError(f"names must be like normal_n2 and normal_n2_p0, parts of a DARTS cell, got '{name}'")
        chosen = entry.get("chosen") if isinstance(entry, dict) else None
        if not isinstance(chosen, list) or not chosen:
            raise ConfigError(f"{name}: must be {{chosen: [...]}}, got {entry!r}")
        tokens = [Token(value, str(name)) for value in chosen]
        if match[3] is None:
            switches[name] = tokens
        elif len(tokens) > 1:
            raise tokens[1].refused("one operation")
        else:
            edges[name] = tokens[0]
    return genotype(read_cells(edges, switches), NAMES, options)
