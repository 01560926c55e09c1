"""Sums of module outputs: tensors of equal shape, alone or in tuples, lists and dictionaries."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import repeat
from typing import Any

from torch import Tensor

from nas.errors import SpaceError


def total(label: str, terms: Iterable[tuple[object, Any]], weights: Tensor | None = None) -> Any:
    """Add the outputs of modules, item by item, without broadcasting.

    An output is a tensor or a tuple (also a named one), list or dictionary, nested to any depth. None within a
    container stays None. Floating-point types may differ, as they do under autocast: the sum has the widest type.

    Args:
        label: the decision or cell that adds the terms.
        terms: pairs of a module's name and its output.
        weights: factors of the terms, shape `(terms,)`; all 1 if None.

    Returns:
        The sum, of the structure of the first term.

    Raises:
        SpaceError: two terms differ in structure, shape or device, or a term holds something that cannot be summed.
    """
    result: Any = None
    first: object = None
    factors = repeat(None) if weights is None else weights.unbind()
    for factor, (name, output) in zip(factors, terms, strict=weights is not None):
        if not isinstance(output, Tensor | tuple | list | dict):
            raise _unfit(label, name, output)
        if result is None:
            first, result = name, _scaled(label, name, output, factor)
        else:
            result = _added(label, first, result, name, output, factor)
    return result


def _scaled(label: str, name: object, value: Any, factor: Tensor | None) -> Any:
    """Multiply every tensor in `value` by `factor`."""
    if isinstance(value, Tensor):
        if not (value.is_floating_point() or value.is_complex()):
            raise _unfit(label, name, value)
        return value if factor is None else factor * value
    if value is None:
        return None
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _scaled(label, name, item, factor)) for key, item in value.items())
    if isinstance(value, tuple | list):
        return _like(value, [_scaled(label, name, item, factor) for item in value])
    raise _unfit(label, name, value)


def _added(label: str, first: object, result: Any, name: object, value: Any, factor: Tensor | None) -> Any:
    """Return `result + factor * value`; `first` names the first term of `result`."""

    def differ(what: str, one: object, other: object) -> SpaceError:
        return SpaceError(f"'{label}' adds '{first}' and '{name}': {what} must be equal, got {one} and {other}")

    if isinstance(result, Tensor) and isinstance(value, Tensor):
        if result.shape != value.shape:
            raise differ("shapes", tuple(result.shape), tuple(value.shape))
        if result.device != value.device:
            raise differ("devices", result.device, value.device)
        return result + _scaled(label, name, value, factor)
    if type(result) is not type(value):
        raise differ("types", type(result).__name__, type(value).__name__)
    if isinstance(value, dict):
        if result.keys() != value.keys():
            raise differ("keys", list(result), list(value))
        pairs = ((key, _added(label, first, result[key], name, value[key], factor)) for key in result)
        return type(value)(pairs)
    if isinstance(value, tuple | list):
        if len(result) != len(value):
            raise differ("lengths", len(result), len(value))
        items = zip(result, value, strict=True)
        return _like(value, [_added(label, first, one, name, other, factor) for one, other in items])
    return _scaled(label, name, value, factor)


def _like(value: Any, items: list[Any]) -> Any:
    if isinstance(value, list):
        return items
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


def _unfit(label: str, name: object, value: object) -> SpaceError:
    found = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
    return SpaceError(
        f"'{name}' of '{label}' must return floating-point tensors, alone or in tuples, lists and dictionaries, got"
        f" {found}"
    )
