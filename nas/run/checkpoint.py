"""State on disk: checkpoints of a running search or training, and operation weights for sharing."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from nas.distributed.ranks import rank
from nas.errors import DivergedError, InvalidFileError, MissingFileError, NASError, UnknownNameError, nearest
from nas.files import read_bytes, write_atomic
from nas.kernels.finite import broken
from nas.registry import kind

FORMAT = 1

SHIPPED = kind("weights")
"""Weights that installed packages ship, by name."""

WHOLE = "."
"""The name of the whole network among its parts; no part can have it."""

_VALUES = (type(None), bool, int, float, complex, str, bytes)
_TENSORS = (Tensor, nn.Parameter, torch.Size, torch.device, torch.dtype)
_CONTAINERS = (list, tuple, set)
_MAPPINGS = (dict, OrderedDict)


def save(path: str | Path, state: Mapping[str, Any], *, keep: Path | None = None) -> None:
    """Write plain state atomically: a kill leaves the old file or the new one.

    Args:
        path: of the file.
        state: containers, numbers, texts and tensors.
        keep: the path that the old file gets, if it is to be kept.

    Raises:
        InvalidFileError: the file cannot be written; the old one stays.
        TypeError: `load` would refuse the state.
    """
    require_plain(state)
    # In memory first: torch's writer turns a full disk into a RuntimeError about file positions.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "state": dict(state)}, buffer)
    write_atomic(path, lambda file: file.write(buffer.getbuffer()), keep)


def load(path: str | Path) -> dict[str, Any]:
    """Return the state that `save` wrote, with its tensors on the CPU. No code is run from the file.

    Raises:
        InvalidFileError: the file is missing, damaged or no checkpoint.
    """
    path = Path(path)
    data = io.BytesIO(read_bytes(path))
    try:
        with zipfile.ZipFile(data) as archive:  # `torch.load` reads flipped bits without a word
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        data.seek(0)
        content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make its parsers raise anything
        raise InvalidFileError(f"{path}: damaged, or no checkpoint ({_reason(error)})") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT or not isinstance(content.get("state"), dict):
        found = "no checkpoint of this package" if version is None else f"a checkpoint of format {version!r}"
        raise InvalidFileError(f"{path}: {found}, expected format {FORMAT}")
    state: dict[str, Any] = content["state"]
    return state


@contextmanager
def restoring(path: str | Path, part: str = "") -> Iterator[None]:
    """Inside, errors of loading the state that was read from `path` become an `InvalidFileError`.

    With `part`, the state is that of a part with code of its own, such as `observer 'mine'`. The error may be in that
    code, and the message says so.
    """
    try:
        yield
    except NASError:
        raise
    except Exception as error:  # a missing or wrong field can raise anything
        found = f"no field {error}" if isinstance(error, KeyError) else _reason(error)
        if part:
            raise InvalidFileError(
                f"{path}: {part} must load the state that it saved, got {type(error).__name__} ({found}); it has"
                " changed since, or the file was altered"
            ) from error
        raise InvalidFileError(f"{path}: altered, or of another version of the package ({found})") from error


def random_state() -> dict[str, Any]:
    """Return the state of torch's global random generators: of the CPU and of all CUDA devices."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set torch's random generators to a state of `random_state`; devices that are missing here are skipped."""
    torch.set_rng_state(state["cpu"])
    if rank() > 0:  # it computes on another device what rank 0 does on its first
        for generator in state.get("cuda", [])[:1]:
            torch.cuda.set_rng_state(generator)
        return
    for device, generator in zip(range(torch.cuda.device_count()), state.get("cuda", []), strict=False):
        torch.cuda.set_rng_state(generator, device)


def save_weights(path: str | Path, weights: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write a `state_dict` as safetensors, with texts about it.

    Raises:
        InvalidFileError: the file cannot be written.
        DivergedError: a value is not finite (see `nas.kernels.finite.broken`).
    """
    if (name := broken(weights)) is not None:
        raise DivergedError(f"{path}: weights must be finite to be saved, got values of '{name}' that are not")
    # Cloned, since safetensors refuses tensors that share memory (tied weights).
    data = safetensors.torch.save(
        {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}, dict(about) if about else None
    )
    write_atomic(path, lambda file: file.write(data))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the `state_dict` that `save_weights` wrote, on the CPU; raises `InvalidFileError`, also if not finite."""
    try:
        weights = safetensors.torch.load(read_bytes(path))
    except InvalidFileError:
        raise
    except Exception as error:  # as in `load`
        raise InvalidFileError(f"{path}: damaged, or no safetensors file ({_reason(error)})") from error
    if (name := broken(weights)) is not None:
        raise InvalidFileError(f"{path}: weights must be finite, got values of '{name}' that are not; train them again")
    return weights


def load_parts(network: nn.Module, files: Mapping[str, str], known: Callable[[], Iterable[str]] = lambda: ()) -> None:
    """Load weights files into parts of a network.

    Args:
        network: changed in place.
        files: names of shipped weights, or paths of files, by the path of a submodule (`alignment.ofm.flow`); `.` is
            the whole network.
        known: the parts of other networks of the space. Their files are read, but not used.

    Raises:
        UnknownNameError: no network has the part.
        InvalidFileError: a file cannot be read or does not fit.
    """
    parts = {place or WHOLE: part for place, part in network.named_modules()}
    for place, path in files.items():
        if place not in parts and place not in (others := set(known())):
            near = _beside(place, {*parts, *others})
            hint = f"'{WHOLE}' is the whole network; initial=null loads nothing"
            raise UnknownNameError("part of the network (in 'initial')", place, near, hint)
        file = weights_file(path)
        weights = load_weights(file)
        if place in parts:
            try:
                load_into(parts[place], weights, file)
            except InvalidFileError as error:
                raise InvalidFileError(f"{error}; initial=null begins without weights for '{place}'") from error


def weights_file(target: str | Path) -> Path:
    """Return the file that `target` names: that of shipped weights of this name, else the one at this path.

    Raises:
        MissingFileError: there is neither.
        ConfigError: the package that offers the weights is broken.
    """
    name = str(target)
    if name in SHIPPED.names():
        return Path(SHIPPED.find(name)())
    if not Path(target).exists():
        near = nearest(name, SHIPPED.names())
        raise MissingFileError(f"{target}: cannot be read: no such file, and no weights of this name{near}")
    return Path(target)


def _beside(place: str, parts: set[str]) -> list[str]:
    """The parts right below the longest prefix of a path that the network has."""
    while place and place not in parts:
        place = place.rpartition(".")[0]
    return sorted(part for part in parts - {"", WHOLE} if part.rpartition(".")[0] == place)


def load_into(network: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load weights that were read from `path`; raises `InvalidFileError` if they do not fit the network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).partition("\n")[2].split()).split(". ")[0].rstrip(".")
        raise InvalidFileError(f"{path}: weights of another network, or of another version of it: {reason}") from error


def plain(value: object) -> Any:
    """Return any value as state that `save` can write: tensors on the CPU, and the text of what is not plain."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if type(value) in _VALUES else repr(value)


def require_plain(value: object) -> None:
    """Raise `TypeError` for state that `save` cannot write: what `torch.load` cannot make without running code."""
    kind = type(value)
    if kind in _MAPPINGS and isinstance(value, Mapping):
        for key, each in value.items():
            require_plain(key)
            require_plain(each)
    elif kind in _CONTAINERS and isinstance(value, Iterable):
        for each in value:
            require_plain(each)
    elif kind not in _VALUES + _TENSORS:
        raise TypeError(f"only plain state can be saved, got {kind.__module__}.{kind.__qualname__}")


def _reason(error: Exception) -> str:
    """The first sentence of an error's message, on one line."""
    message = " ".join(str(error).split()).split(". ")[0][:120]
    return message or type(error).__name__
