"""Distributions of settings, as text: `log(1e-4, 1e-1)`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

import msgspec
import optuna

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.files import parse_yaml

Kind = Literal["float", "log", "int", "choice"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_CALL = re.compile(r"\s*(\w+)\((.*)\)\s*", re.DOTALL)


class Distribution(NamedTuple):
    """The distribution of a setting: an interval, ends included, or a choice of values as YAML texts."""

    kind: Kind
    arguments: tuple[float, float] | tuple[str, ...]

    @classmethod
    def parse(cls, text: str, where: str) -> Distribution:
        """Parse `float(low, high)`, `log(low, high)` (uniform in the logarithm), `int(low, high)` or `choice(a, b)`.

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
        if kind == "choice":
            if not values:
                raise ConfigError(f"{where} must have a value to choose, got '{text}'")
            return cls(kind, tuple(map(_yaml, values)))
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
        """The value of a trial, as YAML text: drawn now, or when the trial began."""
        if self.kind == "choice":
            return str(trial.suggest_categorical(key, [str(value) for value in self.arguments]))
        low, high = map(float, self.arguments)
        if self.kind == "int":
            return str(trial.suggest_int(key, int(low), int(high)))
        return repr(trial.suggest_float(key, low, high, log=self.kind == "log"))


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
