"""Each kind of damage of a run folder is found, and what is said of it holds."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import toy
from nas.errors import NASError
from nas.run import checkpoint
from nas.run.config import load_config
from nas.run.examination import Examination, Finding, examine, run_folders
from nas.run.folder import LAST, METRICS, PREVIOUS, Run, Versions
from nas.run.searching import derive_from
from runs import NOISY, assert_equal_runs, run_retrain, run_search
from watch import Stop, Stopped

SHORT = ("search.steps=6", "search.epochs=3")
SEARCH = toy.config(*SHORT)
TRAINING = toy.config(
    "retrain.epochs=3", *(f"retrain.stages.{stage}.steps={n}" for stage, n in (("backbone", 5), ("averaging", 4)))
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: a search that was stopped in its middle, the whole one, a whole retraining."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(Stopped):
        run_search(folder / "search", SEARCH, Stop(5))
    run_search(folder / "whole", SEARCH)
    run_retrain(folder / "net", TRAINING, genotype=NOISY)
    return folder


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    """A copy of the search that was stopped: its last checkpoint is of step 4, the one before of step 2."""
    shutil.copytree(kept / "search", tmp_path / "run")
    return tmp_path / "run"


def resumed(found: Examination) -> None:
    """Do what the command to continue says; that it parses is tested with the command line."""
    words = shlex.split(found.command)
    assert words[:2] == ["nas", "search"]
    assert words[3:5] == ["--out", str(found.folder)]
    run_search(found.folder, load_config(words[2]), resume=True)


def only(found: Examination) -> Finding:
    (finding,) = found.findings
    return finding


def test_a_run_on_its_way(kept: Path, run: Path) -> None:
    found = examine(run)
    assert (found.kind, found.step, found.steps, found.finished, found.findings) == ("search", 4, 6, False, [])
    assert found.summary == f"{run}: a search, step 4 of 6"
    resumed(found)
    assert_equal_runs(kept / "whole", run)


@pytest.mark.parametrize(("name", "steps"), [("whole", 6), ("net", 9)])
def test_a_finished_run(name: str, steps: int, kept: Path) -> None:
    found = examine(kept / name)
    assert (found.step, found.steps, found.finished, found.findings, found.command) == (steps, steps, True, [], "")
    assert found.summary.endswith(", finished")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))


Damage = Callable[[Path], object]
HARMLESS: dict[str, tuple[Damage, str, str, str]] = {
    "last damaged": (
        lambda run: cut(run / LAST),
        LAST,
        "damaged, or no checkpoint",
        "the checkpoint before it, of step 2",
    ),
    "last missing": (lambda run: (run / LAST).unlink(), LAST, "missing", "the checkpoint before it, of step 2"),
    "previous damaged": (lambda run: cut(run / PREVIOUS), PREVIOUS, "damaged", "not needed"),
    "a genotype missing": (
        lambda run: (run / "genotypes/step-000002.yaml").unlink(),
        "genotypes/step-000002.yaml",
        "missing",
        "written again|writes it again",
    ),
    "versions missing": (lambda run: (run / "versions.yaml").unlink(), "versions.yaml", "missing", "writes it again"),
    "half a record": (
        lambda run: (run / METRICS).open("a").write('{"kind"\n'),
        METRICS,
        "not a record",
        "cuts what follows",
    ),
    "a temporary file": (
        lambda run: (run / "checkpoints/.last.pt.0123abcd").touch(),
        "checkpoints/.last.pt.0123abcd",
        "half written",
        "removes it",
    ),
}


@pytest.mark.filterwarnings("ignore")  # of what is missing, when the run is resumed
@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_hinder_is_told_and_the_run_resumes(name: str, kept: Path, run: Path) -> None:
    damage, file, problem, advice = HARMLESS[name]
    damage(run)
    finding = only(found := examine(run))
    assert (finding.file, finding.hinders, finding.repair) == (file, False, None)
    assert re.search(problem, finding.problem)
    assert re.search(advice, finding.advice)
    resumed(found)
    assert_equal_runs(kept / "whole", run)


REPAIRABLE: dict[str, tuple[Damage, str, str]] = {
    "configuration changed": (lambda run: edit(run / "config.yaml"), "config.yaml", "changed"),
    "configuration missing": (lambda run: (run / "config.yaml").unlink(), "config.yaml", "missing"),
    "a genotype changed": (
        lambda run: edit(run / "genotypes/step-000002.yaml"),
        "genotypes/step-000002.yaml",
        "changed",
    ),
    "a genotype unreadable": (
        lambda run: (run / "genotypes/step-000002.yaml").write_bytes(b"\xff"),
        "genotypes/step-000002.yaml",
        "changed",
    ),
}


@pytest.mark.parametrize("name", REPAIRABLE)
def test_what_the_checkpoint_has_a_copy_of_is_repaired(name: str, kept: Path, run: Path) -> None:
    damage, file, problem = REPAIRABLE[name]
    damage(run)
    before = (run / file).read_bytes() if (run / file).exists() else None
    found = examine(run)
    finding = next(each for each in found.findings if each.file == file)
    assert finding.hinders
    assert problem in finding.problem
    assert found.command == ""
    with pytest.raises(NASError):
        run_search(run, SEARCH, resume=True)
    assert finding.repair is not None
    finding.repair()
    aside = run / f"{file}.aside"
    assert (aside.read_bytes() if aside.exists() else None) == before, "nothing is removed"
    aside.unlink(missing_ok=True)
    assert examine(run).findings == []
    resumed(examine(run))
    assert_equal_runs(kept / "whole", run)


def remove_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def damage_both(run: Path) -> None:
    cut(run / LAST)
    cut(run / PREVIOUS)


HOPELESS: dict[str, tuple[Damage, list[str], str, str]] = {
    "both checkpoints damaged": (damage_both, [LAST, PREVIOUS], "damaged", r"genotypes/step-000004\.yaml is the last"),
    "no checkpoints": (remove_checkpoints, [LAST], "missing, though the run has records", "restore it from a copy"),
    "records changed": (
        lambda run: edit(run / METRICS),
        [METRICS],
        "changed since",
        "nas derive .* --from .* --out NEW",
    ),
    "records lost": (lambda run: (run / METRICS).write_bytes(b""), [METRICS], "0 bytes, though", "nas derive"),
    "versions unreadable": (lambda run: edit(run / "versions.yaml"), ["versions.yaml", "config.yaml"], "", ""),
}


@pytest.mark.parametrize("name", HOPELESS)
def test_what_hinders_is_told_with_what_can_be_saved(name: str, run: Path) -> None:
    damage, files, problem, advice = HOPELESS[name]
    damage(run)
    found = examine(run)
    assert found.command == ""
    hindering = [each for each in found.findings if each.hinders]
    assert [each.file for each in hindering] == files
    assert all(re.search(problem, each.problem) and re.search(advice, each.advice) for each in hindering)
    with pytest.raises(NASError):
        run_search(run, SEARCH, resume=True)
    if "nas derive" in advice:
        assert derive_from(run).choices


def test_a_run_before_its_first_step(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", SEARCH.dump(), 0).close()
    found = examine(tmp_path / "run")
    assert only(found).problem == "missing: the run has taken no step"
    assert found.summary == f"{tmp_path}/run: a run, step 0"
    resumed(found)


def test_a_run_that_is_in_use(run: Path) -> None:
    with Run.open(run):
        finding = only(found := examine(run))
        assert re.fullmatch(rf"in use by process {os.getpid()} on {platform.node()} since .*", finding.problem)
        assert (finding.hinders, found.command, found.step) == (True, "", 4)
    assert examine(run).findings == []


def test_a_run_that_diverged(tmp_path: Path) -> None:
    config = toy.config(
        "task.broken=2", "search.steps=40", *(f"search.levels.{n}.patience=3" for n in ("lower", "upper"))
    )
    with pytest.raises(NASError) as error:
        run_search(tmp_path / "run", config)
    finding = only(found := examine(tmp_path / "run"))
    assert str(error.value).startswith(finding.problem)
    assert (finding.file, finding.hinders, found.command) == ("diverged.pt", True, "")
    (tmp_path / "run" / "diverged.pt").write_bytes(b"")
    assert not only(examine(tmp_path / "run")).hinders


@pytest.mark.parametrize("name", ["genotype.yaml", "weights.safetensors"])
def test_a_result_that_is_damaged_is_written_again(name: str, kept: Path, tmp_path: Path) -> None:
    origin = kept / ("net" if name.endswith("safetensors") else "whole")
    shutil.copytree(origin, tmp_path / "run")
    cut(tmp_path / "run" / name)
    found = examine(tmp_path / "run")
    finding = only(found)
    if name == "genotype.yaml":  # of a search it is no file of its checkpoint
        resumed(found)
    else:
        run_retrain(tmp_path / "run", TRAINING, resume=True)
    assert (finding.file, finding.hinders, finding.advice) == (name, False, "resuming writes it again")
    assert_equal_runs(origin, tmp_path / "run")


def test_another_machine_and_a_full_disk_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = Versions.now(0, "")
    with monkeypatch.context() as patch:
        patch.setattr(
            Versions, "now", classmethod(lambda cls, seed, config: Versions(**{**_fields(now), "threads": 99}))
        )
        finding = only(examine(run))
    assert (finding.file, finding.hinders) == ("versions.yaml", False)
    assert "now 99" in finding.problem
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 5_000))  # type: ignore[attr-defined]
    assert only(examine(run)).problem == "0 MB are free on its disk"


def _fields(versions: Versions) -> dict[str, object]:
    return {name: getattr(versions, name) for name in versions.__struct_fields__}


def test_a_crafted_checkpoint_repairs_no_other_file(run: Path) -> None:
    content = checkpoint.load(run / LAST)
    for files in ({"../planted.yaml": "x"}, {"config.yaml": 3}, [1]):
        checkpoint.save(run / LAST, content | {"files": files})
        found = examine(run)
        assert [each.file for each in found.findings if each.hinders] == [LAST]
        assert all(each.repair is None for each in found.findings)
    checkpoint.save(run / LAST, content | {"state": {"kind": ["x"], "step": "y"}, "files": {}})
    assert (examine(run).kind, examine(run).step) == ("", 0)


def test_folders_below_are_runs_too(kept: Path, tmp_path: Path) -> None:
    assert run_folders(kept) == [kept / "net", kept / "search", kept / "whole"]
    assert run_folders(kept / "net") == [kept / "net"]
    for folder, message in ((tmp_path, "no run"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(NASError, match=message):
            run_folders(folder)


def test_a_space_that_is_not_imported(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", SEARCH.dump().replace("space: toy", "space: tay"), 0).close()
    (finding,) = [each for each in examine(tmp_path / "run").findings if each.hinders]
    assert finding.problem.startswith("unknown search space 'tay'")
    assert "--import" in finding.advice


def test_versions_of_which_no_checkpoint_has_a_copy_hinder(run: Path) -> None:
    for name in (LAST, PREVIOUS):
        checkpoint.save(run / name, {**checkpoint.load(run / name), "files": {}})
    (run / "versions.yaml").unlink()
    found = examine(run)
    assert (only(found).file, only(found).problem, only(found).hinders) == ("versions.yaml", "missing", True)
    assert not found.command
    with Run.open(run) as opened, pytest.raises(NASError, match=r"versions\.yaml"):
        opened.resume()
