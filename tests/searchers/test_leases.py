"""Leases on each storage: hosts that race, a process that is lost, one that was only halted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

import leasing
import processes
from nas.errors import ConfigError
from nas.searchers.leases import Lease, LeaseLostError, Leases

STORAGES = ["journal", "sqlite", "postgresql"]
GRACE = 0.6


def never() -> bool:
    raise AssertionError("must not wait")


def halt(lease: Lease) -> None:
    """End the renewals of a lease, as a halted process does."""
    lease._closed.set()
    lease._thread.join()


@pytest.mark.parametrize("kind", STORAGES)
def test_processes_that_race_run_each_trial_once(kind: str, storage_url: Callable[[str], str], tmp_path: Path) -> None:
    url, count, start = storage_url(kind), 12, time.time() + 1
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    racing = [processes.call(leasing.race, url, folder, count, start) for folder in folders]
    assert [processes.finish(process) for process in racing] == [0, 0, 0]
    ran = [
        int(number)
        for folder in folders
        if (folder / "ran").exists()
        for number in (folder / "ran").read_text().split()
    ]
    assert sorted(ran) == list(range(count))
    trials = leasing.leases(url, tmp_path).study.trials
    assert [trial.state for trial in trials[:count]] == [TrialState.COMPLETE] * count
    assert {trial.state for trial in trials[count:]} <= {TrialState.WAITING}


@pytest.mark.parametrize("kind", STORAGES)
def test_of_two_that_see_a_free_trial_one_takes_it(
    kind: str, storage_url: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = storage_url(kind)
    first, second = (leasing.leases(url, tmp_path / name) for name in "ab")
    first.study.enqueue_trial({})
    seen, also_seen = first.study.trials[0], second.study.trials[0]
    lease = first._take(seen)
    assert lease is not None
    assert second._take(also_seen) is None
    lease.close()
    assert second._take(also_seen) is None, "what was seen is of an older lease"
    again = second._take(second.study.trials[0])
    assert again is not None
    running = first.study.trials[0]
    second.study.tell(0, 1.0)
    again.close()
    monkeypatch.setattr(Leases, "_stale", lambda *_: True)
    assert first._take(running) is None, "it has ended since"


@pytest.mark.parametrize("kind", STORAGES)
def test_a_lost_trial_is_taken_again_and_counted_once(
    kind: str, storage_url: Callable[[str], str], tmp_path: Path
) -> None:
    url = storage_url(kind)
    first, second = (leasing.leases(url, tmp_path / name, GRACE) for name in "ab")
    with first.claim(1) as lost:
        assert lost is not None
        until, waits = time.monotonic() + 2 * GRACE, list[str]()
        with pytest.raises(KeyboardInterrupt), second.claim(1, lambda: time.monotonic() > until, waits.append):
            pass  # the lease is renewed
        assert len(waits) == 1
        assert waits[0].startswith(f"trial 0 (process {os.getpid()} on ")
        assert not lost.lost
        halt(lost)
        with second.claim(1) as taken:
            assert taken is not None
            assert taken.number == lost.number == 0
            assert lost.lost
            with pytest.raises(LeaseLostError, match="trial 0: another process has taken it over"):
                lost.require()
            second.study.tell(0, 1.0)
    with first.claim(1) as none:
        assert none is None
    assert [trial.value for trial in first.study.trials] == [1.0]


@pytest.mark.parametrize("kind", STORAGES)
def test_what_ends_without_a_result_is_free_at_once(
    kind: str, storage_url: Callable[[str], str], tmp_path: Path
) -> None:
    url = storage_url(kind)
    first, second = (leasing.leases(url, tmp_path / name) for name in "ab")
    with first.claim(1) as lease:
        assert lease is not None
    with second.claim(1, never) as again:
        assert again is not None
        assert again.number == 0


def test_processes_with_common_locks_do_not_wait(tmp_path: Path) -> None:
    first, second = (leasing.leases(f"journal:{tmp_path}/study.log", tmp_path) for _ in range(2))
    with first.claim(1) as lease:
        assert lease is not None
        with pytest.raises(AssertionError, match="must not wait"), second.claim(1, never):
            pass
        halt(lease)
        lease._lock.close()  # as the system does if a process is killed
        with second.claim(1, never) as taken:
            assert taken is not None
            lease._renew()
            assert lease.lost


def test_more_trials_go_on_with_what_a_race_left(tmp_path: Path) -> None:
    mine = leasing.leases(f"journal:{tmp_path}/study.log", tmp_path)
    mine.study.enqueue_trial({})
    mine.study.enqueue_trial({})
    for count in (1, 1, 2):
        with mine.claim(count) as lease:
            if lease is not None:
                mine.study.tell(lease.number, 0.0)
        assert len(mine.study.trials) == 2
        assert sum(trial.state == TrialState.COMPLETE for trial in mine.study.trials) == count


def test_a_storage_that_does_not_answer_for_the_grace_loses_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = leasing.leases(f"journal:{tmp_path}/study.log", tmp_path, GRACE)

    def fail(self: BaseStorage, *arguments: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("no connection"))

    with mine.claim(1) as lease:
        assert lease is not None
        with monkeypatch.context() as patch:
            patch.setattr(type(mine.storage), "set_trial_system_attr", fail)
            time.sleep(GRACE / 2)
            assert not lease.lost
        with monkeypatch.context() as patch:
            time.sleep(GRACE / 2)
            assert not lease.lost, "it is renewed again"
            patch.setattr(type(mine.storage), "set_trial_system_attr", fail)
            time.sleep(2 * GRACE)
            assert lease.lost


def test_a_lease_names_its_owner_and_is_given_back(tmp_path: Path) -> None:
    mine = leasing.leases(f"journal:{tmp_path}/study.log", tmp_path)
    with mine.claim(1):
        ((key, lease),) = mine.study.trials[0].system_attrs.items()
        assert key.startswith("lease-0-")
        assert lease.keys() == {"owner", "place", "grace", "renewed"}
        assert lease["owner"].startswith(f"process {os.getpid()} on ")
    assert mine.study.trials[0].system_attrs == {key: {}}


@pytest.mark.parametrize("grace", [0.0, -1.0, float("nan"), float("inf")])
def test_the_grace_is_positive(grace: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the grace must be a number of seconds above 0, got {grace}"):
        leasing.leases(f"journal:{tmp_path}/study.log", tmp_path, grace)
