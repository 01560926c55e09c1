"""Symbolic values without data that record which ports they depend on, and calls of `forward` with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import fx, nn

Port = tuple[str, int | None]
"""A part and the number of one of its inputs or outputs, counted from 0; None means all of them."""

_SHAPES = {"shape", "size", "dim", "ndim", "numel", "nelement", "stride", "dtype", "device", "layout", "requires_grad"}
_SHAPES |= {"new_empty", "new_full", "new_ones", "new_tensor", "new_zeros"}
"""Attributes of a tensor that do not depend on its elements."""


class Value(fx.Proxy):
    """Input or output of a module during tracing: the ports whose data it depends on.

    An operation on values returns a value with the ports of all. Branching on a value raises `fx.proxy.TraceError`.

    Args:
        ports: the ports; repeated ones count once.
    """

    def __init__(self, *ports: Port) -> None:
        self.tracer = _TRACER
        self.ports = tuple(dict.fromkeys(ports))

    def __getattr__(self, name: str) -> fx.Proxy:  # type: ignore[override]  # `Attribute` is private
        if name.startswith("__"):
            raise AttributeError(name)
        return Value() if name in _SHAPES else super().__getattr__(name)


class _Tracer(fx.proxy.TracerBase):
    graph = fx.Graph()

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *_: Any, **__: Any) -> fx.Proxy:
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        if name.endswith("_like"):  # depends on the shape alone
            return Value()
        found = Value(*(port for value in values((args, kwargs)) for port in value.ports))
        if kind == "call_method" and name.endswith("_") and not name.startswith("__"):  # in place
            args[0].ports = found.ports
        return found


_TRACER = _Tracer()


def values(item: Any) -> Iterator[Value]:
    """Yield the values in nested tuples, lists, dicts and slices."""
    if isinstance(item, Value):
        yield item
    elif isinstance(item, fx.Proxy):  # an attribute of a value, such as `x.T`
        yield from values(item.root)
    elif isinstance(item, tuple | list):
        for each in item:
            yield from values(each)
    elif isinstance(item, Mapping):
        yield from values(list(item.values()))
    elif isinstance(item, slice):
        yield from values((item.start, item.stop, item.step))


def mapped(item: Any, change: Callable[[Value], Value]) -> Any:
    """Return a copy of a nested item, with `change` applied to each value."""
    if isinstance(item, fx.Proxy):
        return change(Value(*(port for value in values(item) for port in value.ports)))
    if isinstance(item, tuple):
        made = [mapped(each, change) for each in item]
        return type(item)(*made) if hasattr(item, "_fields") else tuple(made)
    if isinstance(item, list):
        return [mapped(each, change) for each in item]
    if isinstance(item, dict):
        return {key: mapped(each, change) for key, each in item.items()}
    return item


def merged(*items: Any) -> Any:
    """Return a value with the ports of all items; tuples of equal length are merged element by element."""
    first = items[0]
    if isinstance(first, tuple) and all(isinstance(item, tuple) and len(item) == len(first) for item in items):
        made = [merged(*each) for each in zip(*items, strict=True)]
        return type(first)(*made) if hasattr(first, "_fields") else tuple(made)
    return Value(*(port for value in values(items) for port in value.ports))


Call = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def calls_to(call: Call, network: nn.Module) -> Iterator[Mapping[nn.Module, Callable[..., Any]]]:
    """Replace the `forward` of every module in a network by `call` until the context ends.

    Args:
        call: called as `call(module, args, kwargs)`.
        network: the network. No other thread may use it meanwhile.

    Yields:
        The original `forward` of each module.
    """
    before = {module: module.forward for module in network.modules()}
    own = {module: "forward" in vars(module) for module in before}

    def replaced(module: nn.Module) -> Callable[..., Any]:
        return lambda *args, **kwargs: call(module, args, kwargs)

    try:
        for module in before:
            vars(module)["forward"] = replaced(module)
        yield before
    finally:
        for module, forward in before.items():
            if own[module]:
                vars(module)["forward"] = forward
            else:
                del vars(module)["forward"]
