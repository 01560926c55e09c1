"""Values of attributes as expressions."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import Tensor

from nas.errors import ExportError

SMALL = 64
"""The most numbers of a tensor that is written into the source."""
_NAMESPACES = (torch, torch.nn.functional, torch.special, torch.fft, math, operator)

Refer = Callable[[Any], str]
"""Gives the text by which a function or class is named in the file."""


def written(value: Any, refer: Refer, where: str) -> str:
    """The expression for a value; raises `ExportError`, beginning with `where`, for one that has none."""

    def inside(each: Any) -> str:
        return written(each, refer, where)

    match value:
        case enum.Enum():
            return f"{refer(type(value))}.{value.name}"
        case None | bool() | int() | str() | bytes() if type(value) in (type(None), bool, int, str, bytes):
            text = repr(value)
            return f'"{text[1:-1]}"' if text[0] == "'" and not {*text} & {'"', "\\"} else text
        case float() if type(value) is float:
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        case torch.dtype():
            return f"{refer(torch)}.{str(value).partition('.')[2]}"
        case Tensor() if value.numel() <= SMALL and not value.is_meta:
            return f"{refer(torch)}.tensor({value.tolist()}, dtype={inside(value.dtype)})"
        case tuple() if hasattr(value, "_fields"):
            return f"{refer(type(value))}({', '.join(map(inside, value))})"
        case torch.Size() | tuple() if type(value) in (tuple, torch.Size):
            return f"({', '.join(map(inside, value))}{',' if len(value) == 1 else ''})"
        case list() if type(value) is list:
            return f"[{', '.join(map(inside, value))}]"
        case set() | frozenset() if type(value) in (set, frozenset):
            return f"{type(value).__name__}([{', '.join(map(inside, sorted(value, key=repr)))}])"
        case dict() if type(value) is dict:
            return f"{{{', '.join(f'{inside(k)}: {inside(v)}' for k, v in value.items())}}}"
        case functools.partial():
            keywords = (f"{name}={inside(given)}" for name, given in value.keywords.items())
            given = ", ".join([inside(value.func), *map(inside, value.args), *keywords])
            return f"{refer(functools.partial)}({given})"
        case type() | BuiltinFunctionType():
            return refer(value)
    if inspect.isfunction(value) and value.__name__ != "<lambda>":
        return refer(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value) if field.init)
        return f"{refer(type(value))}({', '.join(f'{name}={inside(getattr(value, name))}' for name in fields)})"
    kind = "lambda" if inspect.isfunction(value) else type(value).__name__
    raise ExportError(f"{where} is a {kind}, which cannot be written as source")


def named(value: Any) -> tuple[str, str] | None:
    """The module and the name of a function or class of torch or of the standard library; None for others."""
    name = getattr(value, "__name__", "")
    home = getattr(value, "__module__", None)
    for namespace in (*_NAMESPACES, *([sys.modules[home]] if home in sys.modules else [])):
        if getattr(namespace, name, None) is value:
            root = namespace.__name__.partition(".")[0]
            return (namespace.__name__, name) if root == "torch" or root in sys.stdlib_module_names else None
    return None
