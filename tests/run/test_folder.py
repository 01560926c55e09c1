from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import ConfigError, InvalidFileError
from nas.genotype.file import Genotype
from nas.kernels import native
from nas.run import checkpoint
from nas.run.folder import Run, Versions, config_hash, read_genotypes, read_records, read_state, read_versions

CONFIG = "seed: 3\nlevels:\n  lower: {rate: 1e-3}\n  upper: {rate: 0.5}\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def steps(folder: Path) -> list[int]:
    return [record["step"] for record in read_records(folder)]


def test_a_new_run_knows_what_it_was_started_with(tmp_path: Path) -> None:
    with Run.create(tmp_path / "runs" / "first", CONFIG, seed=3) as run:
        assert run.config_text == CONFIG
        versions = run.versions
    assert versions == read_versions(tmp_path / "runs" / "first")
    assert (versions.seed, versions.config) == (3, config_hash(CONFIG))
    assert (versions.python, versions.torch) == (platform.python_version(), torch.__version__)
    assert versions.package.startswith("tmics-nas")
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(versions.started)).total_seconds()) < 60
    told = (tmp_path / "runs" / "first" / "versions.yaml").read_text()
    assert platform.node() not in told
    assert str(Path.home()) not in told


def test_records_come_back_and_numbers_that_are_none_are_null(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        run.record("decisions", decisions={"alignment": ["ofm", "tgm"]})
        run.record("train", step=1, level="lower", loss=0.1)
        run.record("train", step=2, level="lower", loss=float("nan"))
        assert read_records(run.path) == [  # while the run is going on
            {"kind": "decisions", "decisions": {"alignment": ["ofm", "tgm"]}},
            {"step": 1, "kind": "train", "level": "lower", "loss": 0.1},
            {"step": 2, "kind": "train", "level": "lower", "loss": None},
        ]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == read_records(tmp_path / "run")


def test_a_folder_that_is_not_empty_stays_untouched(tmp_path: Path) -> None:
    (tmp_path / "versions.yaml").write_text("of another program")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="not empty; continue the run in it with --resume, or use another folder"):
        Run.create(tmp_path, CONFIG, seed=0)
    assert contents(tmp_path) == before


def test_what_a_desktop_leaves_in_a_folder_is_nothing(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).touch()
    with Run.create(tmp_path, CONFIG, seed=0):
        pass
    assert (tmp_path / "config.yaml").is_file()


def test_a_finished_run_is_not_begun_again(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        run.record("train", step=1)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        Run.create(tmp_path / "run", CONFIG, seed=0)
    assert contents(tmp_path) == before


def test_an_empty_folder_and_one_left_by_a_kill_can_be_used(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    (tmp_path / "versions.yaml").write_text("package: half writ")
    (tmp_path / ".config.yaml.ab12_xyz").write_text("see")
    Run.create(tmp_path, CONFIG, seed=0).close()
    assert set(contents(tmp_path)) == {".lock", "config.yaml", "versions.yaml", "metrics.jsonl"}


@pytest.mark.parametrize("inside", ["", "runs"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InvalidFileError, match=r"file.*: cannot be"):
        Run.create(tmp_path / "file" / inside, CONFIG, seed=0)
    assert (tmp_path / "file").read_text() == "precious"


def test_invalid_configuration_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="configuration:1: not valid YAML"):
        Run.create(tmp_path / "run", "seed: [", seed=0)
    assert not (tmp_path / "run").exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    first = Run.create(tmp_path / "run", CONFIG, seed=0)
    lock = tmp_path / "run" / ".lock"
    now = datetime.now(UTC).isoformat()[:11]
    owner = rf"process {os.getpid()} on {re.escape(platform.node())} since {now}.*\+00:00"
    for _ in range(2):  # the first attempt leaves the owner's name
        with pytest.raises(ConfigError, match=rf"another process is using it \({owner}\); wait for it to end, or"):
            Run.open(tmp_path / "run")
    lock.write_bytes(b"\xff" * 500)  # by another program
    with pytest.raises(ConfigError, match="another process is using it; wait for it to end, or use another folder"):
        Run.open(tmp_path / "run")
    first.close()
    assert lock.read_bytes() == b""
    Run.open(tmp_path / "run").close()


def test_a_create_that_fails_gives_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InvalidFileError, match="No space left on device"):
            Run.create(tmp_path / "run", CONFIG, seed=0)
    Run.create(tmp_path / "run", CONFIG, seed=0).close()


def test_nothing_to_resume(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidFileError, match=r"no run to resume \(it has no config.yaml\)"):
            Run.open(folder)
    assert os.listdir(tmp_path) == []


def test_another_configuration_names_the_keys(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", CONFIG, seed=3).close()
    Run.open(tmp_path / "run", "levels: {upper: {rate: 5e-1}, lower: {rate: 0.001}}  # same\nseed: 3").close()
    other = "seed: 4\nlevels:\n  lower: {rate: 1e-3}\nbatch: [1, 2]"
    expected = (
        r"seed \(was 3, now 4\), levels\.upper\.rate \(was 0\.5, now not set\), batch \(was not set, now \[1,2\]\)"
    )
    with pytest.raises(ConfigError, match=expected):
        Run.open(tmp_path / "run", other)
    Run.open(tmp_path / "run").close()


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    assert config_hash("a: 1\nb: {c: 0.001, d: x}") == config_hash("b: {d: 'x', c: 1e-3} # comment\na: 1")
    assert config_hash("a: 1") != config_hash("a: 2")
    assert config_hash("a: 1") != config_hash("a: '1'")
    neutral = "{search: {steps: 1, checkpoint_minutes: 2}, retrain: []}"
    assert config_hash(neutral) == config_hash("{search: {steps: 1}, retrain: []}") != config_hash("{search: {}}")
    assert len(config_hash("a: 1")) == 16
    with pytest.raises(InvalidFileError, match="configuration: all keys must be texts"):
        config_hash("a: {1: b}")


def test_resuming_removes_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        assert run.resume() is None
        run.save_checkpoint({"step": 0})
        for step in range(1, 6):
            run.record("train", step=step)
            if step == 3:
                run.save_checkpoint({"step": step, "weight": torch.ones(2)})
            run.record("evaluate", step=step)
    with Run.open(tmp_path / "run") as run:
        state = run.resume()
        assert state is not None
        assert state["step"] == 3
        assert torch.equal(state["weight"], torch.ones(2))
        assert steps(run.path) == [1, 1, 2, 2, 3]
        run.record("evaluate", step=3)
        assert steps(run.path) == [1, 1, 2, 2, 3, 3]


def test_killed_before_its_first_checkpoint_a_run_begins_again(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", CONFIG, seed=0).close()
    with Run.open(tmp_path / "run") as run:
        assert run.resume() is None


@pytest.mark.parametrize("gone", ["last.pt", ""])
def test_records_without_a_checkpoint_are_not_thrown_away(gone: str, tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        run.save_checkpoint({"step": 0})
        run.record("train", step=1)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    if gone:
        (tmp_path / "run" / "checkpoints").mkdir()
    with Run.open(tmp_path / "run") as run:
        with pytest.raises(InvalidFileError, match=r"checkpoints/last\.pt: missing, though the run has records"):
            run.resume()
        assert steps(run.path) == [1]


@given(cut=st.integers(0, 400))
def test_a_half_written_line_is_removed(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Whatever a power cut leaves of the metrics, resuming leaves what its checkpoint counts on, or refuses."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with Run.create(folder, CONFIG, seed=0) as run:
        for step in range(2):
            run.record("train", step=step, level="nätverk")
        run.save_checkpoint({})
        size = (folder / "metrics.jsonl").stat().st_size
        for step in range(2, 5):
            run.record("train", step=step, level="nätverk")
    left = (folder / "metrics.jsonl").read_bytes()[:cut]
    (folder / "metrics.jsonl").write_bytes(left)
    with Run.open(folder) as run:
        if cut < size:
            with pytest.raises(InvalidFileError, match=rf"metrics\.jsonl: {cut} bytes, though .* counts on {size};"):
                run.resume()
            assert (folder / "metrics.jsonl").read_bytes() == left
            return
        run.resume()
        run.record("train", step=9)
    assert steps(folder) == [0, 1, 9]


def test_records_that_were_changed_are_refused(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        for step in range(3):
            run.record("train", step=step)
        run.save_checkpoint({})
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(changed := path.read_bytes().replace(b'"step":1', b'"step":7'))
    with Run.open(tmp_path / "run") as run, pytest.raises(InvalidFileError, match="changed since the last checkpoint"):
        run.resume()
    assert path.read_bytes() == changed


def test_a_record_that_is_no_record_is_named(tmp_path: Path) -> None:
    for line in ("{'step': 1}", "[1]", "", '{"step": 1}', '{"kind": 1}', '{"kind": "a", "step": "x"}', "[" * 5000):
        (tmp_path / "metrics.jsonl").write_text(f'{{"kind":"a"}}\n{line}\n{{"kind":"a","step":2}}\n')
        with pytest.raises(InvalidFileError, match=r"metrics\.jsonl:2: not a record"):
            read_records(tmp_path)
    for record, named in (
        ({"kind": "train", "level": "lower"}, "'step'"),
        ({"kind": "train", "step": 1, "level": 2}, "level"),
        ({"kind": "mixing", "step": 1, "weights": {"a": ["x"]}}, "weights"),
        ({"kind": "mixing", "step": 1, "weights": {"a": 0.5}}, "weights"),
        ({"kind": "decisions", "decisions": ["a"]}, "decisions"),
        ({"kind": "observer", "step": 1, "observer": "collapse", "entropy": "x"}, "'entropy' must be a number or null"),
        ({"kind": "stopping", "step": 1, "rule": "r", "reason": "x"}, "'genotype'"),
        ({"kind": "evaluate", "parts": {"a": 1}}, "parts"),
        ({"kind": "evaluation", "step": 1, "score": None, "best": None, "choices": {}}, "best"),
        ({"kind": "origin", "search": 1}, "search"),
        ({"kind": "frozen", "step": 1, "level": "l", "operations": [1], "of": 2}, "operations"),
        ({"kind": "backoff", "step": 1, "level": "l"}, "'factor'"),
        ({"kind": "stopped", "step": 1}, "'steps'"),
    ):
        (tmp_path / "metrics.jsonl").write_text(f'{{"kind":"of a plugin","a":[]}}\n{json.dumps(record)}\n')
        with pytest.raises(InvalidFileError, match=rf"metrics\.jsonl:2: .*{named}"):
            read_records(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind":"\xff"}\n')
    with pytest.raises(InvalidFileError, match=r"metrics\.jsonl:1: not a record"):
        read_records(tmp_path)
    with pytest.raises(InvalidFileError, match=r"metrics\.jsonl: cannot be read"):
        read_records(tmp_path / "nowhere")


def test_a_record_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        run.record("train", step=1)
        run.save_checkpoint({"step": 1})
        size = (run.path / "metrics.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(InvalidFileError, match=r"metrics\.jsonl: cannot be written: No space left"):
                run.record("train", step=2)
            with pytest.raises(InvalidFileError, match=r"metrics\.jsonl: cannot be written: File too large"):
                run.record("train", step=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert steps(run.path) == [1]
    with Run.open(tmp_path / "run") as run:
        run.resume()
        run.record("train", step=2)
        assert steps(run.path) == [1, 2]


def test_a_damaged_checkpoint_removes_nothing(tmp_path: Path) -> None:
    last, previous = (tmp_path / "run/checkpoints" / name for name in ("last.pt", "previous.pt"))
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        for step in (1, 2, 3):
            run.record("train", step=step)
            if step < 3:
                run.save_checkpoint({"step": step})
    whole = previous.read_bytes()
    for file in (last, previous):
        file.write_bytes(file.read_bytes()[:-7])
    with Run.open(tmp_path / "run") as run:
        with pytest.raises(InvalidFileError, match=r"last\.pt: damaged.*; restore it from a copy, or start the run"):
            run.resume()
        with pytest.raises(InvalidFileError, match=r"last\.pt: damaged.*; restore it from a copy, or start the run"):
            read_state(run.path)
        checkpoint.save(last, {"step": 1})
        with pytest.raises(InvalidFileError, match="a checkpoint, but not of a run"):
            run.resume()
        assert steps(run.path) == [1, 2, 3]
        previous.write_bytes(whole)
        with pytest.warns(UserWarning, match=r"last\.pt: a checkpoint, but not of a run; reading previous\.pt"):
            assert read_state(run.path) == {"step": 1}
        with pytest.warns(UserWarning, match=r"last\.pt: a checkpoint, but not of a run; resuming from previous\.pt"):
            assert run.resume() == {"step": 1}
        assert steps(run.path) == [1]
        assert run.resume() == {"step": 1}, "the damaged one is replaced"
        last.rename(previous)
        last.mkdir()
        with (
            pytest.warns(UserWarning, match=r"resuming from previous\.pt"),
            pytest.raises(InvalidFileError, match=r"last\.pt: cannot be written: Is a directory"),
        ):
            run.resume()


@pytest.mark.parametrize(
    ("field", "value"),
    [("threads", 99), ("kernel", "other"), ("torch", "1.0"), ("package", "older"), ("platform", "another machine")],
)
def test_resuming_where_bits_may_differ_says_so(field: str, value: object, tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        versions = run.versions
        assert (versions.threads, versions.kernel) == (torch.get_num_threads(), native.is_loaded())
        run.resume()
        run.save_checkpoint({"step": 0})
    was = not versions.kernel if field == "kernel" else value
    with pytest.MonkeyPatch.context() as patch:
        now = msgspec.structs.replace(versions, **{field: was})
        patch.setattr(Versions, "now", classmethod(lambda cls, seed, config: now))
        with Run.open(tmp_path / "run") as run:
            message = rf"run: {field} \(was {re.escape(str(getattr(versions, field)))}, now {was}\) since the run was"
            with pytest.warns(UserWarning, match=message):
                run.resume()
    with Run.open(tmp_path / "run") as run:
        run.resume()  # without a word


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        (tmp_path / "run").rename(tmp_path / "moved")
        genotype = Genotype(space="tiny", choices={"operation": "conv"})
        writes: list[Callable[[], object]] = [
            lambda: run.record("train", step=1),
            lambda: run.save_checkpoint({"step": 1}),
            lambda: run.save_genotype(genotype, 1),
        ]
        for write in writes:
            with pytest.raises(InvalidFileError, match="run: the folder was removed, moved or replaced during the run"):
                write()
        run.withdraw()
        assert os.listdir(tmp_path) == ["moved"]


def test_genotypes_are_kept_by_step(tmp_path: Path) -> None:
    genotype = Genotype(space="tiny", choices={"operation": "conv"})
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        assert run.save_genotype(genotype, 123) == run.path / "genotypes" / "step-000123.yaml"
        assert run.save_genotype(genotype) == run.path / "genotype.yaml"
    assert Genotype.load(tmp_path / "run" / "genotypes" / "step-000123.yaml") == genotype
    shutil.copy(tmp_path / "run/genotypes/step-000123.yaml", tmp_path / "run/genotypes/step-000123-mine.yaml")
    assert read_genotypes(tmp_path / "run") == {123: genotype}, "copies beside them are the user's"
    assert Genotype.load(tmp_path / "run" / "genotype.yaml") == genotype


def test_killed_anywhere_and_resumed_a_run_equals_the_uninterrupted(tmp_path: Path) -> None:
    """A random walk that depends on torch's random state, checkpointed every third step, killed eight times over."""
    program = """
import os, signal, sys, time
from pathlib import Path
import torch
from nas.run import checkpoint
from nas.genotype.file import Genotype
from nas.run.folder import Run

def walk(run, steps=60):
    torch.manual_seed(0)
    step, position = 0, torch.zeros(3)
    if state := run.resume():
        step, position = state["step"], state["position"]
        checkpoint.set_random_state(state["random"])
    else:
        run.save_checkpoint({"step": 0, "position": position, "random": checkpoint.random_state()})
    if step == 0:
        run.record("decisions", decisions={"a": ["left", "right"]})
    while step < steps:
        step += 1
        position += torch.randn(3)
        run.record("train", step=step, level="lower", loss=position.norm().item())
        if step % 3 == 0:
            run.record("evaluate", step=step, score=position[0].item())
            run.save_genotype(Genotype(space="walk", choices={"a": "left"}), step)
            run.save_checkpoint({"step": step, "position": position, "random": checkpoint.random_state()})
    run.save_genotype(Genotype(space="walk", choices={"a": "right"}))

def begin(folder):
    return Run.open(folder, "seed: 0") if (folder / "config.yaml").exists() else Run.create(folder, "seed: 0", 0)

whole, killed = Path(sys.argv[1]), Path(sys.argv[2])
with begin(whole) as run:
    began = time.monotonic()
    walk(run)
    duration = time.monotonic() - began
for kill in range(8):
    child = os.fork()
    if child == 0:
        with begin(killed) as run:
            walk(run)
        os._exit(0)
    time.sleep(duration * (0.02 + 0.09 * kill))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
with begin(killed) as run:
    walk(run)
"""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", program, whole, killed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    a, b = contents(whole), contents(killed)
    assert list(a) == list(b), "a file too many or too few"
    different = {name for name in a if a[name] != b[name]}  # versions tell when it was started
    assert different <= {"versions.yaml", "checkpoints/last.pt", "checkpoints/previous.pt"}
    for name in ("checkpoints/last.pt", "checkpoints/previous.pt"):
        ours, theirs = (checkpoint.load(folder / name) for folder in (whole, killed))
        assert ours["state"].keys() == theirs["state"].keys()
        assert torch.equal(ours["state"]["random"]["cpu"], theirs["state"]["random"]["cpu"])
        assert torch.equal(ours["state"]["position"], theirs["state"]["position"])
        assert (ours["metrics"], ours["checksum"]) == (theirs["metrics"], theirs["checksum"])
    assert len(read_records(killed)) == 1 + 60 + 20


@pytest.mark.parametrize(
    "name", ["../beside.yaml", "/tmp/of-a-crafted-checkpoint", "genotypes/../../beside.yaml", ".lock"]
)
def test_a_crafted_checkpoint_writes_no_other_file(tmp_path: Path, name: str) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        run.save_checkpoint({"step": 1})
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    content = checkpoint.load(last)
    checkpoint.save(last, content | {"files": {name: "planted"}})
    before = contents(tmp_path)
    with Run.open(tmp_path / "run") as run, pytest.raises(InvalidFileError, match="altered: a run has no file"):
        run.resume()
    assert contents(tmp_path) == before
    assert not Path("/tmp/of-a-crafted-checkpoint").exists()


@pytest.mark.parametrize("files", [["config.yaml"], None, "config.yaml"])
def test_a_checkpoint_whose_copies_of_files_are_altered_is_refused(tmp_path: Path, files: object) -> None:
    with Run.create(tmp_path / "run", CONFIG, seed=0) as run:
        run.save_checkpoint({"step": 1})
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    checkpoint.save(last, checkpoint.load(last) | {"files": files})
    with Run.open(tmp_path / "run") as run, pytest.raises(InvalidFileError, match=type(files).__name__):
        run.resume()
