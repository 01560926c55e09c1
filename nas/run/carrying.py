"""What a stage of a search takes over from the stage before: weights, arch parameters, and the states of optimizers.

Names decide: a parameter or buffer of the new supernet that the old one has takes its value over, and so does the state
of its optimizer. Arch parameters lose the entries of the candidates that were dropped. If a tensor has grown, since
mixed operations compute more of the channels, the further channels are copies of channels drawn at random, in a batch
norm of the same ones as in the convolution before it. Everything else starts from scratch.

References:
    xiangning-chen/DrNAS, `net2wider.py`: weights are copied without division by the number of copies, since the new
    channels of partial channels have other inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.multilevel.multilevel import Multilevel
from nas.space.chooser import seed_of
from nas.supernet import Supernet

Change = Callable[[Tensor], Tensor]
"""Makes a tensor of the shape of the new parameter of one of the shape of the old one."""


def carry_over(before: Multilevel, after: Multilevel) -> None:
    """Give the levels of a stage, and their supernet, what those of the stage before have.

    Args:
        before: at the end of its stage.
        after: changed in place; it has the same levels, over a supernet with at most the candidates of `before`.

    Raises:
        ConfigError: a tensor has shrunk.
    """
    old, new = before.model, after.model
    assert isinstance(old, Supernet)
    assert isinstance(new, Supernet)
    found = changes(old, new)
    theirs, mine = old.state_dict(), new.state_dict()
    new.load_state_dict({name: found[name](theirs[name]) if name in found else mine[name] for name in mine})
    after.load_state_dict({**before.state_dict(), "optimizers": after.state_dict()["optimizers"]})  # the counts
    for name, stepper in after.steppers.items():
        source = before.steppers[name]
        for parameter, value in stepper.parameters.items():
            state = source.optimizer.state.get(source.parameters[parameter]) if parameter in source.parameters else None
            if state:
                like = theirs[parameter].shape
                stepper.optimizer.state[value] = _changed(state, found[parameter], like)


def changes(old: Supernet, new: Supernet) -> dict[str, Change]:
    """Return how each tensor that both supernets have changes, by name.

    Args:
        old: the supernet of the stage before.
        new: that of a stage that continues it.

    Raises:
        ConfigError: a tensor has shrunk.
    """
    theirs = old.state_dict()
    found: dict[str, Change] = {}
    for name, value in new.state_dict().items():
        if name not in theirs:
            continue
        label = name.removeprefix("arch.")
        if name.startswith("arch."):
            known = old.decisions[label].candidates
            left = torch.tensor([known.index(each) for each in new.decisions[label].candidates], device=value.device)
            found[name] = lambda tensor, left=left: tensor.index_select(0, left)  # type: ignore[misc]
        else:
            found[name] = _widening(name, theirs[name].shape, value, new.seed)
    return found


def _widening(name: str, small: torch.Size, large: Tensor, seed: int) -> Change:
    """The change of a tensor to a shape that is at least as large in each dimension."""
    if len(small) != large.dim() or any(a > b for a, b in zip(small, large.shape, strict=True)):
        raise ConfigError(
            f"a stage that continues another must have tensors at least as large, got {tuple(large.shape)} for"
            f" {tuple(small)} of '{name}'. Set continues: false"
        )
    sizes = enumerate(zip(small, large.shape, strict=True))
    grown = [(dim, _channels(a, b, seed)) for dim, (a, b) in sizes if a < b]

    def change(tensor: Tensor) -> Tensor:
        for dim, channels in grown:
            tensor = tensor.index_select(dim, channels.to(tensor.device))
        return tensor

    return change


def _channels(small: int, large: int, seed: int) -> Tensor:
    """Of which of `small` channels each of `large` channels is a copy: the first ones of themselves."""
    generator = torch.Generator().manual_seed(seed_of(seed, "channels", small, large))
    drawn = torch.randint(small, (large - small,), generator=generator)
    return torch.cat([torch.arange(small), drawn])


def _changed(state: Mapping[str, Any], change: Change, like: torch.Size) -> dict[str, Any]:
    """The state of an optimizer for a parameter that has changed; what has not its shape, such as a count, stays."""
    return {
        key: change(value).clone() if isinstance(value, Tensor) and value.shape == like else value
        for key, value in state.items()
    }
