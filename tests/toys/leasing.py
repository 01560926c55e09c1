"""Processes that race for the trials of a study, without anything to compute."""

from __future__ import annotations

import time
from pathlib import Path

from nas.searchers.leases import Leases
from nas.searchers.storage import open_storage, open_study


def leases(url: str, folder: Path, grace: float = 60.0) -> Leases:
    """Leases of the study `s`; another folder acts as another host, because it has other locks."""
    storage = open_storage(url)
    return Leases(open_study(storage=storage, study_name="s", direction="maximize"), storage, folder, grace=grace)


def race(url: str, folder: Path, count: int, start: float) -> None:
    """Take trials until all have ended; writes the numbers of those that this process ran into `folder/ran`."""
    mine = leases(url, folder)
    time.sleep(max(0.0, start - time.time()))
    while True:
        with mine.claim(count) as lease:
            if lease is None:
                break
            with (folder / "ran").open("a") as file:
                file.write(f"{lease.number} ")
            mine.study.tell(lease.number, float(lease.number))
