"""A shortcut for `torch.autograd.Function`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def signed(function: F) -> F:
    """Decorator of `forward`: `Function.apply` asks for its signature at every call, and finding it out is slow."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # any function takes attributes
    return function
