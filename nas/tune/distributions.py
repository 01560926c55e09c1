"""Distributions of settings, as text: `log(1e-4, 1e-1)`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

import msgspec
import optuna

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.files import parse_yaml

Kind = Literal["float", "log", "int", "choice", "grid"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_CALL = re.compile(r"\s*(\w+)\((.*)\)\s*", re.DOTALL)


class Distribution(NamedTuple):
    """The distribution of a setting: an interval, ends included, or a choice or a grid of values as YAML texts."""

    kind: Kind
    arguments: tuple[float, float] | tuple[str, ...]

    @classmethod
    def parse(cls, text: str, where: str) -> Distribution:
        """Parse `float(low, high)`, `log(low, high)` (uniform in the logarithm), `int(low, high)`, `choice(a, b)`, or
        `grid(a, b)` (each value in turn).

        Raises `ConfigError` that starts with `where`.
        """
        match = _CALL.fullmatch(text)
        if match is None:
            raise ConfigError(f"{where} must be a distribution such as log(1e-4, 1e-1), got '{text}'")
        kind = next((kind for kind in KINDS if kind == match[1]), None)
        if kind is None:
            raise ConfigError(f"{where}: {UnknownNameError('distribution', match[1], KINDS)}")
        try:
            values = parse_yaml(f"[{match[2]}]", where)
        except InvalidFileError as error:
            raise ConfigError(str(error)) from error
        if kind in ("choice", "grid"):
            if not values:
                raise ConfigError(f"{where} must have a value to choose, got '{text}'")
            texts = tuple(map(_yaml, values))
            if kind == "grid" and len(set(texts)) < len(texts):
                raise ConfigError(f"{where} must have different values, got '{text}'")
            return cls(kind, texts)
        numbers = [value for value in values if type(value) is int or (type(value) is float and kind != "int")]
        if len(values) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
            what = "whole numbers" if kind == "int" else "numbers"
            raise ConfigError(f"{where} must be {kind}(low, high), two {what}, the lower one first, got '{text}'")
        if kind == "log" and numbers[0] <= 0:
            raise ConfigError(f"{where} must have numbers above 0, got '{text}'")
        return cls(kind, (numbers[0], numbers[1]))

    @property
    def ends(self) -> tuple[str, ...]:
        """The values, as YAML texts, that must be valid for a setting with this distribution."""
        return tuple(map(str, self.arguments))

    def draw(self, trial: optuna.Trial, key: str) -> str:
        """The value of a trial, as YAML text: drawn now, or when the trial began; of a grid the one that is fixed."""
        if self.kind in ("choice", "grid"):
            return str(trial.suggest_categorical(key, [str(value) for value in self.arguments]))
        low, high = map(float, self.arguments)
        if self.kind == "int":
            return str(trial.suggest_int(key, int(low), int(high)))
        return repr(trial.suggest_float(key, low, high, log=self.kind == "log"))


def grid_values(distributions: Mapping[str, Distribution], number: int) -> dict[str, str]:
    """The values of the grids in a trial: all combinations in turn, then again; the last key changes fastest."""
    values = {}
    for key, distribution in reversed(list(distributions.items())):
        if distribution.kind == "grid":
            number, place = divmod(number, len(distribution.arguments))
            values[key] = str(distribution.arguments[place])
    return values


def grid_size(distributions: Mapping[str, Distribution]) -> int | None:
    """The number of combinations, if all distributions are grids; else None."""
    if any(each.kind != "grid" for each in distributions.values()):
        return None
    return math.prod(len(each.arguments) for each in distributions.values())


def split(overrides: Iterable[str], section: Mapping[str, str]) -> tuple[list[str], dict[str, Distribution]]:
    """The plain overrides, and the distributions by key: those of a configuration's section `tune`, and of overrides
    such as `search.steps=int(100, 500)`, which go first."""
    texts, plain = dict(section), []
    for override in overrides:
        key, _, text = override.partition("=")
        if _CALL.fullmatch(text):
            texts[key] = text
        else:
            plain.append(override)
            texts.pop(key, None)
    return plain, {key: Distribution.parse(text, key) for key, text in texts.items()}


def _yaml(value: object) -> str:
    if isinstance(value, str) and parse_yaml(value, "") == value:
        return value
    return msgspec.json.encode(value).decode()
