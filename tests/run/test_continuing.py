"""A run that is a part of a tuning or of a search is continued by the command of the whole."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import toy
from nas.run.continuing import TUNING, TuningCall, command
from nas.run.folder import Run

CALLS = {
    TuningCall(3): "--trials 3 --out OUT",
    TuningCall(3, score="all", study="my study"): "--trials 3 --out OUT --study 'my study' --score all",
    TuningCall(2, train="all", prune=False): "--trials 2 --out OUT --train all --no-pruning",
    TuningCall(2, genotypes=("a", "b c")): "--trials 2 --out OUT --genotype a --genotype 'b c'",
    TuningCall(2, grace=1.5): "--trials 2 --out OUT --grace 1.5",
    TuningCall(2, storage="sqlite:///t.db"): "--trials 2 --out OUT --storage sqlite:///t.db",
    TuningCall(2, storage="mysql://me:secret@host/db"): "--trials 2 --out OUT --storage 'mysql://me:***@host/db'",
}


@pytest.mark.parametrize("call", CALLS, ids=CALLS.values())
@pytest.mark.parametrize("part", ["search", "retrain"])
def test_a_part_of_a_trial(part: str, call: TuningCall, tmp_path: Path) -> None:
    call.save(tmp_path)
    expected = f"nas tune {tmp_path}/config.yaml {CALLS[call]}".replace("OUT", str(tmp_path))
    folder = tmp_path / "trial-0012" / part
    assert shlex.split(command(folder, part)) == shlex.split(expected)
    (tmp_path / "genotype.yaml").touch()
    assert f"--genotype {tmp_path}/genotype.yaml" in command(folder, part)
    assert "secret" not in (tmp_path / TUNING).read_text()


def test_a_trial_whose_call_is_unreadable_or_missing(tmp_path: Path) -> None:
    folder = tmp_path / "trial-0000" / "search"
    assert command(folder, "search").startswith(f"nas search {folder}/config.yaml")
    (tmp_path / TUNING).write_text("trials: many\n")
    assert command(folder, "search") == f"nas tune {tmp_path}/config.yaml --trials N --out {tmp_path}"


@pytest.mark.parametrize("inner", ["evaluations/0003", "supernet"])
def test_a_part_of_a_search(inner: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command(out / inner, "search").startswith(f"nas search {out / inner}/config.yaml")
    Run.create(out, toy.config().dump(), 0).close()
    assert command(out / inner, "retrain").startswith(f"nas search {out}/config.yaml --out {out} --resume")
