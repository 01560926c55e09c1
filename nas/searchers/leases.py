"""Leases: which process runs a trial of a study that several processes and hosts share."""

from __future__ import annotations

import functools
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from nas.errors import ConfigError, NASError
from nas.files import HAS_LOCKS, locked, writing

GRACE = 120.0
"""Seconds after which a lease that is not renewed has lost its process, by default."""
RENEWALS = 4
"""How often a process renews its lease within the grace."""
LOCK = ".lock"

_LEASE = "lease-"
_ATTRIBUTES = sqlalchemy.table(
    "trial_system_attributes", *map(sqlalchemy.column, ("trial_id", "key", "value_json"))
)  # of a database of Optuna; no two rows have one trial and one key
_UNAVAILABLE = (SQLAlchemyError, StorageInternalError, NASError, OSError)


def never() -> bool:
    """Never stop."""
    return False


class Leases:
    """Gives each trial of a study to one process at a time, on any storage of Optuna.

    A lease is an attribute `lease-N` of a trial: its owner, and when it was renewed. To take the trial, a process
    writes `lease-N+1`, and of several processes only the first one succeeds. A lease is stale if it is not renewed for
    its grace, by the clock of the process that watches it: the clocks of hosts are not compared. Processes that see one
    another's locks of files do not wait: the lock that the owner held is free as soon as it ends.

    Trials are numbered by the storage, so two processes that race for the last one cannot both make it: a trial whose
    number is too large waits until more are asked for.

    Args:
        study: of the trials.
        storage: of the study.
        folder: in which each trial has a folder of its own.
        grace: seconds without a renewal after which another process may take a trial of this one.

    Raises:
        ConfigError: the grace is no positive number.
    """

    def __init__(self, study: Study, storage: BaseStorage, folder: Path, *, grace: float = GRACE) -> None:
        if not 0 < grace < float("inf"):
            raise ConfigError(f"the grace must be a number of seconds above 0, got {grace}")
        self.study, self.storage, self.folder, self.grace = study, storage, folder, grace
        self._watched: dict[int, tuple[str, float]] = {}  # by trial: the last renewal, and since when it is known

    def path(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / f"trial-{number:04d}"

    @contextmanager
    def claim(
        self, count: int, stop: Callable[[], bool] = never, on_wait: Callable[[str], None] = lambda owners: None
    ) -> Iterator[Lease | None]:
        """A trial that this process alone runs: one whose process was lost, else a new one.

        Waits while other processes run the last ones, as these may be lost. A trial that has not ended inside of the
        context is free afterwards.

        Args:
            count: of the trials of the study.
            stop: whether to end the wait, by `KeyboardInterrupt`.
            on_wait: called with the trials and their processes, in words, when a wait begins or they change.

        Returns:
            A context of the lease, or of None if `count` trials have ended.
        """
        lease = self.take(count, stop, on_wait)
        try:
            yield lease
        finally:
            if lease is not None:
                lease.close()

    def take(
        self, count: int, stop: Callable[[], bool] = never, on_wait: Callable[[str], None] = lambda owners: None
    ) -> Lease | None:
        """What `claim` does, without a context: the caller closes the lease."""
        known = ""
        while True:
            trials = self.study.get_trials(deepcopy=False)
            left = [frozen for frozen in trials[:count] if not frozen.state.is_finished()]
            for frozen in left:
                if lease := self._take(frozen):
                    return lease
            if len(trials) < count:
                self.study.add_trial(optuna.create_trial(state=TrialState.WAITING))
            elif not left:
                return None
            elif stop():
                raise KeyboardInterrupt
            else:
                if (owners := ", ".join(map(_owner, left))) != known:
                    on_wait(owners)
                    known = owners
                time.sleep(min(1.0, self.grace / RENEWALS))

    def _take(self, frozen: FrozenTrial) -> Lease | None:
        """The lease of a trial that is free or whose process is lost; None if another process has it."""
        key, lease = _current(frozen.system_attrs)
        path = self.path(frozen.number) / LOCK
        with writing(path):
            lock = locked(path)
        if lock is None:
            return None
        with ExitStack() as stack:
            stack.callback(lock.close)
            place = f"{system()} {os.fstat(lock.fileno()).st_dev} {os.fstat(lock.fileno()).st_ino}"
            if not lease or lease["place"] == place or self._stale(frozen.number, lease):
                taken = self._first(frozen, _generation(key) + 1, place)
                if taken is not None:
                    stack.pop_all()  # the lease closes the lock
                    return Lease(self.storage, frozen.number, frozen._trial_id, *taken, lock=lock)
        return None

    def _stale(self, number: int, lease: Mapping[str, Any]) -> bool:
        """Whether a lease was not renewed for its grace, as far as this process has watched it."""
        renewed, since = self._watched.get(number, ("", 0.0))
        if renewed != lease["renewed"]:
            self._watched[number] = lease["renewed"], time.monotonic()
            return False
        return time.monotonic() - since > float(lease["grace"])

    def _first(self, frozen: FrozenTrial, generation: int, place: str) -> tuple[str, dict[str, Any]] | None:
        """Write the lease of a generation; returns its key and value, or None if another process was faster."""
        key, trial_id = f"{_LEASE}{generation}", frozen._trial_id
        owner = f"process {os.getpid()} on {platform.node()}"
        lease: dict[str, Any] = {"owner": owner, "place": place, "grace": self.grace, "renewed": _now()}
        try:
            if isinstance(self.storage, RDBStorage):
                row = {"trial_id": trial_id, "key": key, "value_json": json.dumps(lease)}
                with self.storage.engine.begin() as connection:
                    connection.execute(_ATTRIBUTES.insert().values(row))
            else:
                key += f"-{secrets.token_hex(8)}"  # the first one of a generation in the journal counts
                self.storage.set_trial_system_attr(trial_id, key, lease)
            now = self.storage.get_trial(trial_id)
            if now.state.is_finished() or _current(now.system_attrs)[0] != key:
                return None
            if now.state == TrialState.WAITING:
                self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except (IntegrityError, UpdateFinishedTrialError):
            return None
        return key, lease


class LeaseLostError(NASError):
    """This process was not heard of for longer than its grace, so another one has taken its trial."""


class Lease:
    """A trial that this process runs, made by `Leases.claim`. A thread renews the lease until it is closed."""

    def __init__(
        self, storage: BaseStorage, number: int, trial_id: int, key: str, value: dict[str, Any], *, lock: IO[str]
    ) -> None:
        self.number, self.trial_id = number, trial_id
        self._storage, self._key, self._value, self._lock = storage, key, value, lock
        self._renewed = time.time()
        self._closed, self._lost, self._renewing = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._renew_until_closed, name=key, daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another process has taken the trial, because this one did not renew its lease, or has ended it."""
        if abs(time.time() - self._renewed) > self._value["grace"] / 2:  # this process was halted, or its clock was set
            self._renew()
        return self._lost.is_set()

    def require(self) -> None:
        """Raise `LeaseLostError` if another process has taken the trial or has ended it."""
        if self.lost:
            raise LeaseLostError(f"trial {self.number}: another process has taken it over")

    def close(self) -> None:
        """Give the trial to any process, if it has not ended."""
        self._closed.set()
        self._thread.join()
        with suppress(*_UNAVAILABLE, UpdateFinishedTrialError):
            self._storage.set_trial_system_attr(self.trial_id, self._key, {})
        self._lock.close()

    def _renew_until_closed(self) -> None:
        while not self._closed.wait(self._value["grace"] / RENEWALS) and not self._lost.is_set():
            self._renew()
        if isinstance(self._storage, RDBStorage):
            self._storage.remove_session()  # of this thread

    def _renew(self) -> None:
        with self._renewing:
            started = time.time()
            try:
                self._storage.set_trial_system_attr(self.trial_id, self._key, self._value | {"renewed": _now()})
                taken = _current(self._storage.get_trial(self.trial_id).system_attrs)[0] != self._key
            except UpdateFinishedTrialError:
                taken = True
            except _UNAVAILABLE:  # the next renewal may succeed
                taken = abs(started - self._renewed) > self._value["grace"]
            else:
                self._renewed = started
            if taken:
                self._lost.set()


@functools.cache
def system() -> str:
    """The name of the running system: processes of one see one another's locks of files, if it has any."""
    if not HAS_LOCKS:
        return secrets.token_hex(8)
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()


def _owner(frozen: FrozenTrial) -> str:
    """A trial and the process that runs it, in words."""
    owner = _current(frozen.system_attrs)[1].get("owner")
    return f"trial {frozen.number}" + (f" ({owner})" if owner else "")


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _generation(key: str) -> int:
    """The number in `lease-N` and `lease-N-TOKEN`; -1 if there is no lease."""
    return int(key.split("-")[1]) if key else -1


def _current(attributes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The key and the value of the last lease: of those of one generation the first one. The value is empty if free."""
    key = max((key for key in attributes if key.startswith(_LEASE)), key=_generation, default="")
    return key, attributes.get(key, {})
