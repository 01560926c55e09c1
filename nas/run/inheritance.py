"""Check that derived networks with small widths, which keep slices of its weights, compute what the supernet does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.derive.covering import choose_every_candidate
from nas.errors import NASError, SpaceError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.kernels.torch_internals import tree_leaves, tree_map_only
from nas.space.definition import Description
from nas.supernet import Supernet

TOLERANCE = 1e-6
"""The largest difference of outputs, as a share of the largest output."""


def check_inheritance(description: Description, example: Sequence[Any]) -> None:
    """Raise `SpaceError` if networks with narrow widths cannot inherit the weights of their supernet.

    A derived network keeps the leading channels of every weight, while a supernet masks the others. Both compute the
    same only if masked channels stay zero and every layer keeps its channels apart, or in one order: not behind a
    GroupNorm or LayerNorm, a bias, a sigmoid, a concatenation of two widths or a fused projection to queries, keys and
    values. Derived networks with the smallest widths, which together take every candidate of the space, are compared
    with the supernet fixed to the same genotype: in eval mode and float64, with weights and inputs that are all
    different from zero. A space without widths is not built at all.

    Args:
        description: the space with its options, from `SearchSpace.describe`.
        example: inputs of one forward pass.

    Raises `SpaceError` that names the widths whose networks differ.
    """
    sizes = {label: [int(c) for c in d.candidates] for label, d in description.decisions.items() if d.kind == "width"}
    if not sizes:
        return
    trial = _Trial(description, example)
    for choices in choose_every_candidate(description.decisions):
        narrow = [label for label in sizes if label in choices]
        if not narrow or (found := trial.fault(choices)) is None:
            continue
        whole = {**choices, **{label: max(sizes[label]) for label in narrow}}
        if (also := trial.fault(whole)) is not None:
            raise SpaceError(
                f"space '{description.space.name}': derived networks do not compute what the supernet does, whatever"
                f" their widths: {also}. Choices: {_listed(whole)}"
            )
        alone = {label: trial.fault({**whole, label: choices[label]}) for label in narrow}
        blamed = [label for label in narrow if alone[label] is not None] or narrow
        raise SpaceError(
            f"space '{description.space.name}': a derived network with"
            f" {' and '.join(f'{label!r} = {choices[label]}' for label in blamed)} does not compute what the supernet"
            f" does: {alone[blamed[0]] or found}. Masked channels must stay zero, and layers must not mix them with"
            " others: no GroupNorm, LayerNorm, bias, sigmoid, concatenation or fused projection behind a width."
            f" Choices: {_listed(choices)}"
        )


class _Trial:
    """A supernet whose weights and inputs are nowhere zero, in float64 on the CPU."""

    def __init__(self, description: Description, example: Sequence[Any]) -> None:
        self._description = description
        self._supernet = Supernet(description.space, evaluation="plain", **description.options).double().eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for tensor in self._supernet.network.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(_shifted(tensor, generator))
        self._inputs = tree_map_only(
            Tensor,
            lambda t: _shifted(t.cpu().double(), generator) if t.is_floating_point() else t.cpu(),
            tuple(example),
        )

    def fault(self, choices: Mapping[str, Choice]) -> str | None:
        """How the derived network differs from the supernet; None if it does not."""
        space, options = self._description.space.name, self._description.options
        genotype = Genotype(space=space, options=options, choices=dict(choices))
        try:
            with self._supernet.fixed(genotype):
                expected = self._outputs(self._supernet)
            found = self._outputs(self._supernet.derived(genotype))
        except NASError:
            raise
        except Exception as error:  # noqa: BLE001 - layers raise what they like for sizes that they cannot have
            return f"it cannot be evaluated ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        shapes = [[tuple(tensor.shape) for tensor in outputs] for outputs in (expected, found)]
        if shapes[0] != shapes[1]:
            return f"outputs have shapes {shapes[1]}, of the supernet {shapes[0]}"
        largest = max((tensor.abs().max().item() for tensor in expected if tensor.numel()), default=0.0)
        gap = max(((a - b).abs().max().item() for a, b in zip(expected, found, strict=True) if a.numel()), default=0.0)
        return None if gap <= TOLERANCE * largest else f"outputs of up to {largest:.3g} differ by {gap:.3g}"

    def _outputs(self, network: nn.Module) -> list[Tensor]:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            leaves = tree_leaves(network(*self._inputs))
        return [leaf if leaf.is_floating_point() else leaf.double() for leaf in leaves if isinstance(leaf, Tensor)]


def _shifted(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """The tensor with a little added to each of its numbers: zeros, such as the biases of norms, would hide a fault."""
    size = tensor.abs().mean().nan_to_num(1.0, 1.0, 1.0)
    noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
    return tensor + 0.1 * torch.where(size > 0, size, 1.0) * noise


def _listed(choices: Mapping[str, Choice]) -> str:
    return ", ".join(f"{label}: {list(c) if isinstance(c, tuple) else c}" for label, c in choices.items())
