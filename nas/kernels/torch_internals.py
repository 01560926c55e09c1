"""Every private name of PyTorch that the project uses, with the reason; public names that replace one go here first.

A name that begins with an underscore may change in any release of PyTorch. All of them are in this file, so that a new
release is checked in one place; a test finds any other use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch._ops import OpOverload, OpOverloadPacket
from torch.autograd import Function, forward_ad
from torch.nn.modules import module as _module
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

__all__ = [
    "OpOverload",
    "OpOverloadPacket",
    "TorchDispatchMode",
    "tree_flatten",
    "tree_leaves",
    "tree_map_only",
    "tree_unflatten",
]
"""Types of the operators in `torch.ops`; the base of modes that see operators; functions on nested containers.

PyTorch documents `TorchDispatchMode` in this module alone. Its public containers (`torch.utils.pytree`) came after the
oldest supported version.
"""

# --- autograd ---

transforms_active = torch._C._are_functorch_transforms_active
"""Whether a transform of `torch.func` runs. Public functions of PyTorch ask it too, and none tells."""

will_run = torch._C._will_engine_execute_node
"""Whether the current backward pass runs a node. Raises `RuntimeError` for a node whose gradient is handed over.

`ctx.needs_input_grad` is true for every input that requires a gradient, also if this pass does not compute it.
"""


def in_forward_mode() -> bool:
    """Return whether tangents are computed; `forward_ad` has no public question."""
    return forward_ad._current_level >= 0


def apply(function: type[Function], *arguments: Any) -> Any:
    """Call `function.apply` of the C++ base class, without the steps that only transforms of `torch.func` need.

    `Function.apply` binds the arguments to the signature of `forward` at every call, which takes longer than computing
    a small image.
    """
    return super(Function, function).apply(*arguments)  # type: ignore[misc]  # of the base in C++


# --- batched tensors of `torch.func.vmap`, which have no public interface ---

is_batched = _functorch.is_batchedtensor
is_wrapped = _functorch.is_functorch_wrapped_tensor
unwrapped = _functorch.get_unwrapped


def rewrapped(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor with the batch dimension and level of `like`."""
    place = _functorch.maybe_get_bdim(like), _functorch.maybe_get_level(like)
    batched: Tensor = _functorch._add_batch_dim(tensor, *place)
    return batched


# --- modes ---


innermost_mode: Callable[[], TorchFunctionMode | None] = _get_current_function_mode
"""Returns the innermost function mode; PyTorch has no public question."""
active_modes: Callable[[], Sequence[TorchFunctionMode]] = _get_current_function_mode_stack
"""Returns all function modes, outermost first, so that a later computation can enter them again."""
unwatched: Callable[[], AbstractContextManager[Any]] = _disable_current_modes
"""Returns a context without the dispatch modes that are active."""


# --- operators ---

convolution = torch._convolution  # PyTorch documents it nowhere, but users of `torch.convolution` meet it
"""One of the functions behind `torch.conv2d`."""


def is_mutable(operator: OpOverload) -> bool:
    """Return whether an operator writes into its arguments; only its schema tells."""
    return operator._schema.is_mutable


class Aliases(NamedTuple):
    """Which inputs the outputs of an operator share storage with; only its schema tells."""

    view: bool
    """Whether an output is a view of an input, or the operator changes only the form of an input."""
    names: tuple[str, ...]
    """The names of the arguments that are written."""
    order: tuple[str, ...]
    """The names of all arguments."""
    outputs: int
    """How many of the written arguments are returned."""

    def written(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what the operator returns if it writes nothing."""
        given = {**dict(zip(self.order, args, strict=False)), **kwargs}
        found = [given[name] for name in self.names][: self.outputs]
        return found[0] if len(found) == 1 else tuple(found) or None


@functools.cache
def aliases_of(operator: OpOverload) -> Aliases:
    """Return what an operator shares between inputs and outputs."""
    schema = operator._schema
    written = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    shared = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    returned = sum(r.alias_info is not None and r.alias_info.is_write for r in schema.returns)
    view = shared or torch.Tag.inplace_view in operator.tags or operator is torch.ops.aten.set_.source_Storage
    return Aliases(view, written, tuple(a.name for a in schema.arguments), returned)


def packet_of(operator: OpOverload) -> OpOverloadPacket:
    """Return the operator of which this is an overload; the public table of FLOPs is by operator."""
    return operator._overloadpacket


UNDECLARED_VIEWS = frozenset((torch.ops.aten._unsafe_view.default, torch.ops.aten.lift_fresh.default))
"""Operators that return a view, though their schemas do not say so; reshapes of PyTorch call the private one."""


def size_oblivious(oblivious: bool) -> AbstractContextManager[None]:
    """Return a context in which `torch.export` may treat sizes 0 and 1 as any other; it has no public argument."""
    import torch.fx.experimental._config as symbolic

    context: AbstractContextManager[None] = symbolic.patch(backed_size_oblivious=oblivious)  # type: ignore[attr-defined]
    return context


# --- many tensors by few kernels, as PyTorch's own optimizers use them; there is no public form ---

foreach_add_ = torch._foreach_add_
foreach_copy_ = torch._foreach_copy_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul = torch._foreach_mul
foreach_norm = torch._foreach_norm

# --- tensors and modules ---


def version_of(tensor: Tensor) -> int:
    """Return how often something was written into a tensor. Raises `RuntimeError` for one of inference mode."""
    return tensor._version


def address_of(storage: torch.UntypedStorage) -> int:
    """Return what identifies a storage, also on the meta device, where `data_ptr()` is 0."""
    address: int = storage._cdata
    return address


class Tables(NamedTuple):
    """A module's own tables, to read or change."""

    parameters: dict[str, Any]
    buffers: dict[str, Any]
    children: dict[str, Any]


def tables_of(module: nn.Module) -> Tables:
    """Return a module's own tables; the public iterators are slow, and skip None and what has two names."""
    return Tables(module._parameters, module._buffers, module._modules)


def transient_buffers_of(module: nn.Module) -> set[str]:
    """Return the names of a module's own buffers that its state leaves out."""
    return module._non_persistent_buffers_set


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes of a module that hold hooks; modules have no public list of them."""
STATE_HOOKS = ("_state_dict_hooks",)
"""The same of the hooks that change a module's state."""
TABLE_OF_CHILDREN = "_modules"
"""Attribute of a module that holds its children, for those who watch whether attributes change."""


def has_hooks(module: nn.Module) -> bool:
    """Return whether a hook waits for calls of the module."""
    return any(vars(module)[name] for name in HOOKS)


def has_global_hooks() -> bool:
    """Return whether a hook waits for calls of all modules."""
    return any(vars(_module)[f"_global{name}"] for name in HOOKS)
