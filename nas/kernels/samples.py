"""The samples of a batch: tensors in any nested containers, with one row for each sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nas.errors import ConfigError
from nas.kernels.torch_internals import tree_leaves, tree_map_only


def sample_count(batch: Any) -> int:
    """Return the number of samples of a batch; tensors without dimensions belong to all of them.

    Raises:
        ConfigError: its tensors have different numbers of rows, or none has any.
    """
    found = {len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()}
    if len(found) != 1:
        counts = ", ".join(map(str, sorted(found))) or "none"
        raise ConfigError(
            f"several ranks need batches whose tensors have a row for each sample, got tensors of {counts} rows. Use"
            " one process"
        )
    return found.pop()


def samples_of(batch: Any, begin: int, end: int) -> Any:
    """Return the samples `begin` to `end`, without `end`, of a batch in the same containers."""
    return tree_map_only(Tensor, lambda tensor: tensor[begin:end] if tensor.dim() else tensor, batch)
