"""The group of ranks: who takes part, and plain data that they tell one another.

Ranks call the functions of this file, and those of `reduction`, in the same order. In one process, and inside of
`alone`, there is one rank, and nothing is sent.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]  # PyTorch documents it there
from torch.distributed.rendezvous import rendezvous

from nas.distributed.environment import launched, local_rank
from nas.distributed.heartbeat import Heartbeat
from nas.errors import ConfigError, NASError, RankError
from nas.files import discarding_files

T = TypeVar("T")
Item = TypeVar("Item")

PATIENCE = timedelta(days=7)
"""How long a rank waits for another one in a collective operation. `Heartbeat` notices a rank that is lost earlier."""

WAIT = 3.0
"""Seconds for which a rank that ends with an error waits for that of rank 0."""


@dataclass
class Traffic:
    """What this rank has sent into sums over ranks."""

    calls: int = 0
    bytes: int = 0


traffic = Traffic()
"""The traffic of this process so far."""

_joined = False
_store: Store | None = None
"""Shared by all ranks, and of this file alone."""
_ERROR = "nas/error"
"""The key of the error with which rank 0 ends."""
_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that `torchrun` started are the ranks of one run; without it nothing happens.

    Tensors on graphics processors are summed by NCCL, all others by Gloo. Files are written by rank 0 alone (see
    `nas.files.discarding_files`). At the end all ranks wait for one another; their connection stays for the next time.

    Raises:
        RankError: another rank was lost.
    """
    global _joined, _store
    if launched() == 1:
        yield
        return
    if _joined:
        yield
        gathered(None)
        return
    if not dist.is_initialized():
        with _telling():
            store, rank, count = next(rendezvous("env://"))
            dist.init_process_group(_backend(), store=store, rank=rank, world_size=count, timeout=PATIENCE)
        _store = _cloned(store)
    # A group that the user has made has no store that is known.
    heartbeat = None if _store is None else Heartbeat(_cloned(_store), dist.get_rank(), dist.get_world_size())
    _joined = True
    try:
        with discarding_files(dist.get_rank() > 0):
            yield
            gathered(None)
    finally:
        _joined = False
        if heartbeat is not None:
            heartbeat.end()


def first_tells(error: NASError) -> bool:
    """Return whether rank 0 tells the user of an error with which this rank ends, so that this one need not.

    Rank 0 does if it has the same error, or if this rank only stops because another one has.
    """
    if _store is None:
        return False
    try:
        if dist.get_rank() == 0:
            _store.set(_ERROR, str(error))
            return False
        end = time.monotonic() + WAIT
        while not _store.check([_ERROR]):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return isinstance(error, RankError) or _store.get(_ERROR).decode() == str(error)
    except RuntimeError:  # the store is gone
        return False


def _cloned(store: Store) -> Store:
    """A connection of its own to the same store, since a thread that waits blocks the others of a connection."""
    found: Store = store.clone()  # type: ignore[attr-defined]  # PyTorch's types leave it out
    return found


def _backend() -> str:
    """Gloo, and NCCL beside it if each rank of this machine has a graphics processor of its own."""
    if not torch.cuda.is_available():
        return "gloo"
    processors = torch.cuda.device_count()
    torch.cuda.set_device(local_rank() % processors)
    return "cpu:gloo,cuda:nccl" if local_rank() < processors and dist.is_nccl_available() else "gloo"


def count() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if _joined and not _alone.get() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if _joined else 0


def is_first() -> bool:
    """Return whether this process is rank 0, which alone writes files and tells the user."""
    return rank() == 0


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes as if it were the only one; the others may do the same or something else."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def of_first(make: Callable[[], T]) -> T:
    """Return what `make` returns on rank 0; the other ranks do not call it.

    Args:
        make: returns plain data: containers, numbers, texts and tensors.

    Raises:
        NASError: `make` raised one on rank 0; other ranks raise a `ConfigError` with its message.
    """
    if count() == 1:
        return make()
    if rank() > 0:
        told: Any = _decoded(_broadcast(None))
        if "error" in told:
            raise ConfigError(told["error"])
        found: T = told["value"]
        return found
    try:
        value = make()
    except NASError as error:
        _broadcast(_encoded({"error": str(error)}))
        raise
    _broadcast(_encoded({"value": value}))
    return value


def gathered(value: T) -> list[T]:
    """Return the values that all ranks give, in the order of the ranks; they must be plain data."""
    if count() == 1:
        return [value]
    data = _encoded(value)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    with _telling():
        dist.all_gather(sizes, torch.tensor([len(data)]))
        most = max(int(size) for size in sizes)
        parts = [torch.empty(most, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(parts, torch.cat([data, data.new_zeros(most - len(data))]))
    return [_decoded(part[: int(size)]) for part, size in zip(parts, sizes, strict=True)]


def each(function: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
    """Return what `function` returns for each item; ranks take turns, and all of them return all results.

    Args:
        function: returns plain data, and calls nothing that sums over ranks.
        items: the same on all ranks.
    """
    if count() == 1:
        return [function(item) for item in items]
    own, length, turns = list[T](), 0, count()
    with alone():
        for item in items:
            if length % turns == rank():
                own.append(function(item))
            length += 1
    parts = gathered(own)
    return [parts[i % turns][i // turns] for i in range(length)]


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether any rank sets it."""
    if count() == 1:
        return flags
    sums = torch.tensor(flags, dtype=torch.int32)
    with _telling():
        dist.all_reduce(sums)
    return tuple(bool(total) for total in sums)


def require_equal(tensors: Sequence[Tensor], where: str) -> None:
    """Raise `RankError` unless all ranks have the same bits in these tensors; `where` starts the message."""
    if count() == 1:
        return
    found = gathered([_bits(tensor) for tensor in tensors])
    for number, other in enumerate(found):
        if other != found[0]:
            raise RankError(
                f"{where}: rank {number} must compute what rank 0 does, got other weights. Run all ranks with equal"
                " processors and packages, and draw random numbers from torch's generators alone"
            )


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum a tensor over ranks in place, and count the traffic."""
    traffic.calls += 1
    traffic.bytes += tensor.numel() * tensor.element_size()
    with _telling():
        dist.all_reduce(tensor)
    return tensor


def _bits(tensor: Tensor) -> int:
    """The sum of a tensor's bits, read as integers."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    data = tensor.detach().contiguous()
    kind = whole.get(data.element_size())
    return int((data if kind is None else data.view(kind)).sum(dtype=torch.int64)) if data.numel() else 0


def _broadcast(data: Tensor | None) -> Tensor:
    """The bytes that rank 0 gives."""
    size = torch.tensor([0 if data is None else len(data)])
    with _telling():
        dist.broadcast(size, 0)
        data = torch.empty(int(size), dtype=torch.uint8) if data is None else data
        dist.broadcast(data, 0)
    return data


def _encoded(value: object) -> Tensor:
    file = io.BytesIO()
    torch.save(value, file)
    return torch.frombuffer(bytearray(file.getbuffer()), dtype=torch.uint8)


def _decoded(data: Tensor) -> Any:
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)


@contextmanager
def _telling() -> Iterator[None]:
    """Inside, an error of the connection between ranks is a `RankError`."""
    try:
        yield
    except RuntimeError as error:  # of torch.distributed, which has no common base of its errors
        reason = re.sub(r"^\[\S+\] ", "", str(error).partition("\n")[0].partition(". ")[0])  # no place, no advice
        raise RankError(
            f"another rank has stopped, so this one cannot continue ({reason}). Repeat the command; a run continues"
            " with --resume, on any number of ranks"
        ) from error
