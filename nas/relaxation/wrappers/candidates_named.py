"""The check that a space has the candidate that a wrapper acts on."""

from __future__ import annotations

from collections.abc import Mapping

from nas.errors import ConfigError, nearest
from nas.genotype.decision import Decision


def require_candidate(wrapper: str, candidate: str, decisions: Mapping[str, Decision]) -> None:
    """Raise `ConfigError` if no operation decision of a space has a candidate of this name."""
    names = dict.fromkeys(str(c) for d in decisions.values() if d.kind == "operation" for c in d.candidates)
    if candidate not in names:
        raise ConfigError(
            f"wrapper '{wrapper}': the space must have a candidate '{candidate}', got"
            f" {', '.join(names) or 'no operations'}{nearest(candidate, names)}. Name the skip connection by"
            " `candidate`, or leave the wrapper out"
        )
