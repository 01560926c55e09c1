"""The meter: what modules spend while a network runs, by any clock: FLOPs, time, or memory.

The **own share** of a module is what a clock advances while this module is the innermost watched one that runs. Hence:

- the shares of the modules that it calls are no part of it;
- the calls of a module that runs several times are summed;
- a module that several others hold is metered when it is called, so each call counts once;
- all shares, and what runs outside of the watched modules, add up to what the whole network spends.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from nas.errors import ConfigError, NASError
from nas.kernels.evaluation import in_mode
from nas.kernels.torch_internals import (
    TorchDispatchMode,
    address_of,
    packet_of,
    tables_of,
    tree_leaves,
    tree_map_only,
)

Key = TypeVar("Key")


@dataclass
class Call(Generic[Key]):
    """A call of a watched module that runs now."""

    key: Key
    """What its own share is summed under."""
    module: nn.Module | None
    called: Counter[nn.Module] = field(default_factory=Counter)

    def name_of(self, module: nn.Module) -> str | None:
        """The name of the child that is called next; None if this module is no child.

        Of a child with several names, such as a block that a chain runs twice, the calls take its names in turn.
        """
        children = {} if self.module is None else tables_of(self.module).children
        names = [name for name, child in children.items() if child is module]
        self.called[module] += 1
        return names[(self.called[module] - 1) % len(names)] if names else None


Naming = Callable[[Call[Key], nn.Module], Key]
"""From a watched call and the watched module that it calls to what the share of this module is summed under."""


def seconds() -> float:
    """Wall time, once all work of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def own_shares(
    network: nn.Module,
    inputs: Sequence[Any],
    watched: Iterable[nn.Module],
    key: Naming[Key],
    outside: Key,
    clock: Callable[[], float] = seconds,
) -> dict[Key, float]:
    """Run a network once, in eval mode without gradients, and return the own shares of its watched modules.

    Args:
        network: the network; it stays as it is.
        inputs: its inputs, on its device.
        watched: modules of the network.
        key: what the share of a module is summed under.
        outside: the key of what runs outside of all watched modules.
        clock: a reading that never decreases.

    Returns:
        The sum of the own shares for each key; a module that did not run has none.

    Raises:
        ConfigError: the network cannot run on the inputs.
    """
    spent: dict[Key, float] = defaultdict(float)
    running: list[Call[Key]] = [Call(outside, None)]
    read = 0.0

    def settle() -> None:
        nonlocal read
        before, read = read, clock()
        spent[running[-1].key] += read - before

    def enter(module: nn.Module, _: object) -> None:
        settle()
        running.append(Call(key(running[-1], module), module))

    def leave(*_: object) -> None:
        settle()
        running.pop()

    hooks = []
    for module in dict.fromkeys(watched):
        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]
    try:
        with in_mode(network, "eval"), torch.no_grad():
            read = clock()
            network(*inputs)
        settle()
    except NASError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        tensors = [leaf for leaf in tree_leaves(list(inputs)) if isinstance(leaf, Tensor)]
        shapes = " and ".join(f"{'x'.join(map(str, tensor.shape))} on {tensor.device}" for tensor in tensors)
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ConfigError(f"the network must run on inputs of shape {shapes}, got {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return spent


def own_flops(
    network: nn.Module, inputs: Sequence[Any] | None, watched: Iterable[nn.Module], key: Naming[Key], outside: Key
) -> dict[Key, float]:
    """Return the own shares of FLOPs, of a network on the meta device. See `own_shares`.

    Raises:
        ConfigError: there are no inputs, or the network cannot run on them.
    """
    if inputs is None:
        raise ConfigError("FLOPs depend on the inputs, got none. Give example inputs")
    ghosts = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), tuple(inputs))
    with Tally() as tally:
        return own_shares(network, ghosts, watched, key, outside, lambda: tally.flops)


_WHOLE: set[Any] = set()
"""Operations known to have no parts; asking takes longer than most of them."""


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch
    """Counts the FLOPs of all operations that run in this context; 1 multiply-add = 2 FLOPs.

    It counts as `torch.utils.flop_counter.FlopCounterMode`, which fails if modules are called with leaves inside a
    backward pass.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        count, kwargs = flop_registry.get(packet_of(func)), kwargs or {}
        if count is None and func not in _WHOLE:
            with self:  # in inference mode, operations come here whole
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            _WHOLE.add(func)
        result = func(*args, **kwargs)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=result)
        return result


class Footprint(NamedTuple):
    """What one call takes."""

    flops: int
    """FLOPs of convolutions, matrix products and attention; 1 multiply-add = 2 FLOPs."""
    memory: int
    """Bytes, at the peak, of tensors that did not exist before; without the workspace of single operations."""
    seconds: float
    """Wall time."""


def footprint(call: Callable[[], object], before: Iterable[Tensor] = ()) -> Footprint:
    """Run a call twice, first timed, then watched.

    Args:
        call: what to run; it should have run once before, because what it keeps from its first run counts.
        before: tensors that the call uses and that exist anyway.
    """
    start = seconds()
    call()
    taken = seconds() - start
    with _MemoryTally(before) as tally:
        call()
    return Footprint(tally.flops, tally.peak, taken)


class _MemoryTally(Tally):  # type: ignore[no-untyped-call]  # of torch
    """Also adds up the bytes of the tensors that operations make, for as long as these live."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = {address_of(tensor.untyped_storage()) for tensor in before}

    def __torch_dispatch__(self, *call: Any) -> Any:
        return tree_map_only(Tensor, self._add, super().__torch_dispatch__(*call))

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if address_of(storage) not in self._known:
            self._known.add(address_of(storage))
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._remove, address_of(storage), storage.nbytes())
        return tensor

    def _remove(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size
