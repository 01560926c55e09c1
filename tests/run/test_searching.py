"""The search on a toy space: reproducible, resumable at any moment, and of the configuration's word."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import toy
from nas import files
from nas.cost.space_cost import costs
from nas.derive.stability import undecided
from nas.errors import ConfigError, DivergedError, InvalidFileError, NASError, SpaceError
from nas.genotype.decision import Choice, Decision
from nas.genotype.file import Genotype
from nas.registry import register
from nas.run import checkpoint
from nas.run.collapse import COLLAPSE, sharpness
from nas.run.config import Config, parse_config
from nas.run.examination import examine
from nas.run.folder import Run, read_genotypes, read_records
from nas.run.observer import observed
from nas.run.searching import build_supernet, derive_from, inherit_from
from nas.run.validation import VALIDATION
from nas.space.chooser import Chooser
from nas.space.definition import find_space, search_space
from runs import assert_equal_runs, last, run_search
from states import same
from watch import Log, Stop, Stopped

SHORT = ("search.steps=12", "search.epochs=4")
UPPER = "search.levels.upper"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short search that nothing interrupts."""
    folder = tmp_path_factory.mktemp("search") / "whole"
    torch.manual_seed(1)
    run_search(folder, toy.config(*SHORT))
    return folder


@pytest.mark.parametrize("stop", [2, 5])
def test_a_search_that_samples_goes_on_with_the_same_samples(stop: int, tmp_path: Path) -> None:
    sampling = ("search.relaxation={name: gumbel, temperature: 5, final_temperature: 0.5}", "search.memory=checkpoint")
    config = toy.config(*SHORT, *sampling)

    run_search(tmp_path / "whole", config)
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", config, Stop(stop))
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_what_a_run_holds(whole: Path) -> None:
    steps = [3, 6, 9, 12]
    records = read_records(whole)
    assert records[0] == {"step": 0, "kind": "decisions", "decisions": CANDIDATES}
    mixing = [record for record in records if record["kind"] == "mixing"]
    assert [record["step"] for record in mixing] == [0, *steps]
    assert mixing[0]["weights"] == {label: pytest.approx([1 / len(n)] * len(n)) for label, n in CANDIDATES.items()}
    supernet = last(whole)["network"]
    for label in CANDIDATES:
        assert mixing[-1]["weights"][label] == supernet[f"arch.{label}"].softmax(0).tolist()
    taken = observed(records, COLLAPSE)
    assert [record["step"] for record in taken] == steps
    assert taken[0].keys() == {"step", "kind", "observer", "entropy", "margin", "least_margin", "undecided", "gradient"}
    assert [record["undecided"] for record in taken[:2]] == [1.0, 1.0], "two epochs tell nothing"
    train = [(record["step"], record["level"]) for record in records if record["kind"] == "train"]
    levels = {"lower": range(1, 13), "middle": range(3, 13, 3), "upper": range(4, 13, 2)}  # a warm-up of 1.2 steps
    assert sorted(train) == sorted((step, level) for level, due in levels.items() for step in due)
    names = [f"step-{step:06d}{suffix}" for step in steps for suffix in (".svg", ".yaml")]
    assert sorted(path.name for path in (whole / "genotypes").iterdir()) == names
    final = Genotype.load(whole / "genotype.yaml")
    assert final == Genotype.load(whole / "genotypes" / "step-000012.yaml")
    assert (whole / "genotype.svg").read_text().startswith("<svg")
    assert final.provenance is not None
    assert final.provenance.seed == 0
    assert final.provenance.margins.keys() == CANDIDATES.keys()


CANDIDATES = {"first": ["conv", "depthwise", "scale"], "second": ["linear", "tanh"]}


def test_the_supernet_is_scored_at_each_epoch_and_the_best_genotype_kept(whole: Path, tmp_path: Path) -> None:
    scores = {r["step"]: r["score"] for r in observed(read_records(whole), VALIDATION)}
    assert list(scores) == [3, 6, 9, 12]
    supernet, task = build_supernet(toy.config()), toy.config().build_task()
    supernet.load_state_dict(last(whole)["network"])
    with torch.no_grad():
        rows = [task.measure(supernet.eval(), task.batch("val", index))["score"] for index in range(4)]
    assert scores[12] == pytest.approx(sum(rows) / 4, rel=1e-6)
    best = max(scores, key=scores.__getitem__)
    assert Genotype.load(whole / "best.yaml") == Genotype.load(whole / "genotypes" / f"step-{best:06d}.yaml")
    run_search(tmp_path / "run", toy.config(*SHORT, "search.validation_batches=0"))
    assert not (tmp_path / "run" / "best.yaml").exists()
    records = [r for r in read_records(whole) if r.get("observer") != VALIDATION]
    assert read_records(tmp_path / "run") == records, "scoring changes nothing"


def test_the_provenance_names_what_is_undecided(whole: Path) -> None:
    """As the genotypes of the epochs say, in the files of the epochs, the final one, and what is derived again."""
    epochs = list(read_genotypes(whole).values())
    for number, genotype in enumerate(epochs, 1):
        assert genotype.provenance is not None
        assert genotype.provenance.undecided == undecided(epochs[:number])
    assert epochs[0].provenance is not None
    assert epochs[0].provenance.undecided == ("first", "second")
    assert Genotype.load(whole / "genotype.yaml") == epochs[-1] == derive_from(whole)


def test_a_search_with_limits_and_others_when_it_is_derived_again(tmp_path: Path) -> None:
    term = f"{UPPER}.regularizers=[{{name: expected_cost, weight: 5}}]"
    config = toy.config(*SHORT, f"{UPPER}.warmup=0", term, "search.at_most={scale: 0}")
    genotype = run_search(tmp_path / "run", config)
    assert genotype.choices == {"first": "depthwise", "second": "tanh"}
    assert derive_from(tmp_path / "run") == genotype
    assert derive_from(tmp_path / "run", {}).choices == toy.CHEAPEST
    assert derive_from(tmp_path / "run", {"tanh": 0}).choices == {"first": "scale", "second": "linear"}
    with pytest.raises(NASError, match=r"candidate of a limit 'scal'.*'scale'"):
        derive_from(tmp_path / "run", {"scal": 1})


@register("derivation", "test_best_pair")
def best_pair(
    decisions: Mapping[str, Decision], evaluate: Callable[[Mapping[str, Choice]], float], *, worst: bool = False
) -> dict[str, Choice]:
    """The pair of candidates with the best validation score, or the worst."""
    pairs = itertools.product(*(decision.candidates for decision in decisions.values()))
    scored = [dict(zip(decisions, pair, strict=True)) for pair in pairs]
    return (min if worst else max)(scored, key=evaluate)


def test_the_best_of_samples_has_the_best_score_with_new_statistics(whole: Path) -> None:
    """The oracle takes the statistics of a derived network, in one pass over all its training data."""
    supernet, task = build_supernet(toy.config()), toy.config().build_task()
    supernet.load_state_dict(last(whole)["network"])
    scores = {}
    with torch.no_grad():
        for pair in itertools.product(*CANDIDATES.values()):
            network = supernet.derived(
                Genotype(space="toy", choices=dict(zip(CANDIDATES, pair, strict=True)), options={"channels": 4})
            ).eval()
            norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain mean
                norm.train()
            for index in range(4):
                network(task.batch("train", index)[0])
            network.eval()
            scores[pair] = sum(task.measure(network, task.batch("val", index))["score"] for index in range(4))
    found = derive_from(whole, derivation={"name": "best_of", "samples": 200})
    assert tuple(found.choices.values()) == max(scores, key=scores.__getitem__)


@pytest.mark.parametrize("worst", [False, True])
def test_a_search_derives_by_the_configured_policy(worst: bool, tmp_path: Path) -> None:
    entry = f"search.derivation={{name: test_best_pair, worst: {worst}}}"
    genotype = run_search(tmp_path / "run", toy.config("search.steps=3", "search.epochs=1", entry))
    assert derive_from(tmp_path / "run").choices == genotype.choices
    supernet, task = build_supernet(toy.config()), toy.config().build_task()
    supernet.load_state_dict(last(tmp_path / "run")["network"])
    scores = {}
    with torch.no_grad():
        for pair in itertools.product(*CANDIDATES.values()):
            choices: dict[str, Choice] = dict(zip(CANDIDATES, pair, strict=True))
            with supernet.eval().fixed(Genotype(space="toy", choices=choices, options={"channels": 4})):
                scores[pair] = sum(task.measure(supernet, task.batch("val", i))["score"] for i in range(4))
    assert tuple(genotype.choices.values()) == (min if worst else max)(scores, key=scores.__getitem__)


def test_epochs_are_as_many_as_asked_whether_or_not_they_divide_the_steps(tmp_path: Path) -> None:
    run_search(tmp_path / "run", toy.config("search.steps=19", "search.epochs=10"))
    steps = [2, 4, 6, 8, 10, 12, 14, 16, 18, 19]
    names = [path.stem for path in sorted((tmp_path / "run" / "genotypes").glob("*.yaml"))]
    assert names == [f"step-{step:06d}" for step in steps]
    records = read_records(tmp_path / "run")
    assert [record["step"] for record in observed(records, COLLAPSE)] == steps
    assert last(tmp_path / "run")["step"] == 19


@pytest.mark.parametrize("split", ["train", "middle", "val"])
def test_indicators_are_taken_on_the_split_of_the_arch_parameters(split: str, tmp_path: Path) -> None:
    """The gradient is that of the upper level's loss on its own first batch, whatever the others read."""
    run_search(tmp_path / "run", toy.config(*SHORT, f"{UPPER}.split={split}", f"{UPPER}.optimizer.lr=0"))
    found = [record["gradient"] for record in observed(read_records(tmp_path / "run"), COLLAPSE)]
    supernet, task = build_supernet(toy.config()), toy.config().build_task()
    supernet.load_state_dict(last(tmp_path / "run")["network"])
    batch = task.batch(split, 0)
    assert found[-1] == sharpness(supernet, lambda model: task.losses["fused"](model, batch))["gradient"]


def test_observing_the_hessian_leaves_the_search_as_it_is(whole: Path, tmp_path: Path) -> None:
    run_search(tmp_path / "run", toy.config(*SHORT, "search.hessian_products=3"))
    found = observed(read_records(tmp_path / "run"), COLLAPSE)
    assert all(math.isfinite(record.pop(name)) for record in found for name in ("eigenvalue", "eigenvalue_error"))
    others = [[r for r in read_records(run) if r.get("observer") != COLLAPSE] for run in (whole, tmp_path / "run")]
    assert others[0] == others[1]
    unobserved = observed(read_records(whole), COLLAPSE)
    rounded = [[record.pop("gradient") for record in records] for records in (found, unobserved)]
    assert rounded[0] == pytest.approx(rounded[1], rel=1e-6), "other functions can be differentiated twice"
    assert found == unobserved


def test_ties_go_to_the_cheaper_candidate(tmp_path: Path) -> None:
    config = toy.config(*SHORT, f"{UPPER}.optimizer.lr=0")
    genotype = run_search(tmp_path / "run", config)
    assert genotype.choices == toy.CHEAPEST  # the last candidate of both
    assert derive_from(tmp_path / "run") == genotype


@pytest.mark.parametrize(("weight", "expected"), [(5, toy.CHEAPEST), (-5, toy.DEAREST)])
def test_the_expected_cost_steers_a_search(weight: float, expected: dict[str, Choice], tmp_path: Path) -> None:
    term = f"{UPPER}.regularizers=[{{name: expected_cost, weight: {weight}}}]"
    genotype = run_search(tmp_path / "run", toy.config(*SHORT, f"{UPPER}.warmup=0", term))
    assert genotype.choices == expected
    cost = costs(find_space("toy").describe())
    record = next(r for r in read_records(tmp_path / "run") if r.get("level") == "upper")
    assert record["expected_cost"] == pytest.approx(weight), "over the cost at uniform mixing, as it begins"
    final = cost.expected({k: v.softmax(0).double() for k, v in logits(last(tmp_path / "run")).items()}).item()
    assert (final < cost.uniform) == (weight > 0)


def logits(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name.removeprefix("arch."): v for name, v in state["network"].items() if name.startswith("arch.")}


def test_each_level_moves_its_own_parameters(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    look = Log(lambda supernet: seen.append(copy.deepcopy(dict(supernet.named_parameters()))))
    run_search(tmp_path / "run", toy.config(*SHORT), look)
    for step in range(1, 13):
        changed = {n.split(".")[-2] for n, p in seen[step].items() if not torch.equal(p, seen[step - 1][n])}
        assert "stem" in changed
        assert ("averaging" in changed) == (step % 3 == 0)
        assert ("arch" in changed) == (step >= 4 and step % 2 == 0)


LATENCIES = {"first": {"conv": 3, "depthwise": 2, "scale": 1}, "second": {"linear": 5, "tanh": 4}}


@pytest.mark.parametrize(("term", "table"), [("expected_flops", {}), ("expected_latency", LATENCIES)])
def test_flops_and_latencies_steer_a_search_too(term: str, table: dict[str, Any], tmp_path: Path) -> None:
    overrides = (f"search.latency={json.dumps(table)}", f"{UPPER}.regularizers=[{{name: {term}, weight: 50}}]")
    genotype = run_search(tmp_path / "run", toy.config("search.steps=40", *overrides))
    assert genotype.choices == toy.CHEAPEST
    record = next(r for r in read_records(tmp_path / "run") if r.get("level") == "upper")
    assert record[term] == pytest.approx(50), "over the cost at uniform mixing, as it begins"


def test_a_table_of_latencies_must_fit(tmp_path: Path) -> None:
    overrides = ("search.latency={first: {conv: 3}}", f"{UPPER}.regularizers=[{{name: expected_latency, weight: 1}}]")
    with pytest.raises(ConfigError, match=r"table of latencies .*'first', got none for depthwise, scale[.]"):
        run_search(tmp_path / "run", toy.config(*overrides))


# Several runs


def test_a_search_from_another_starts_from_its_last_state_and_its_schedules_from_the_beginning(
    whole: Path, tmp_path: Path
) -> None:
    config = toy.config("search.steps=6", "search.epochs=3", f"start={whole}", f"{UPPER}.warmup=0.5")
    begun: list[dict[str, Tensor]] = []
    look = Log(lambda supernet: begun.append(copy.deepcopy(supernet.state_dict())))
    genotype = run_search(tmp_path / "run", config, look)
    for name, value in last(whole)["network"].items():
        assert torch.equal(begun[0][name], value), name
    moved = [not torch.equal(a["arch.first"], b["arch.first"]) for a, b in itertools.pairwise(begun)]
    assert moved == [False, False, False, False, True, False], "due every second step after half of its own"
    records = read_records(tmp_path / "run")
    assert records[0] == {"step": 0, "kind": "origin", "search": os.path.relpath(whole, tmp_path / "run")}
    assert genotype.provenance is not None
    assert genotype.provenance.source == f"a search that started from the last state of {whole}"
    mixing = next(record for record in records if record["kind"] == "mixing")
    assert mixing["weights"]["first"] == last(whole)["network"]["arch.first"].softmax(0).tolist()


def test_optimizers_go_on_where_they_are_the_same(whole: Path, tmp_path: Path) -> None:
    """As one step of the whole run would, at the same learning rate, batch and random state, or from new momenta."""
    moments = last(whole)["levels"]["optimizers"]["lower"]["state"][0]["momentum_buffer"]
    found = {}
    for name, override in (("same", "search.epochs=1"), ("other", "search.levels.lower.optimizer.momentum=0.8")):
        still = [f"search.levels.{level}.optimizer.lr=0" for level in ("lower", "middle", "upper")]
        config = toy.config("search.steps=1", "search.levels.lower.clip=null", f"start={whole}", override, *still)
        run_search(tmp_path / name, config)
        found[name] = last(tmp_path / name)["levels"]["optimizers"]["lower"]["state"][0]["momentum_buffer"]
    torch.testing.assert_close(found["same"] - found["other"], 0.9 * moments)


def test_a_search_from_another_is_resumed_without_it(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "origin")
    config = toy.config("search.steps=6", "search.epochs=3", f"start={tmp_path}/origin")
    run_search(tmp_path / "whole", config)

    with pytest.raises(Stopped):
        run_search(tmp_path / "run", config, Stop(3))
    shutil.rmtree(tmp_path / "origin")
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_search_from_what_holds_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"nowhere: not the folder of a search"):
        run_search(tmp_path / "run", toy.config(f"start={tmp_path}/nowhere"))
    assert read_records(tmp_path / "run") == []


# What goes wrong


def broken(batch: int, *overrides: str) -> Config:
    return toy.config(f"task.broken={batch}", *overrides)


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(tmp_path: Path) -> None:
    config = broken(7, "search.steps=40", "search.epochs=10")
    with pytest.raises(DivergedError, match=r"^level 'lower' since step 7: 10 steps in a row not finite") as caught:
        run_search(tmp_path / "run", config)
    assert "\n" not in str(caught.value)
    state = last(tmp_path / "run")
    assert state["step"] == 17, "saved when it stops, not only at the last epoch"
    assert all(v.isfinite().all() for v in state["network"].values())
    about = checkpoint.load(tmp_path / "run" / "diverged.pt")
    assert about["step"] == 17
    assert str(caught.value).startswith(f"{about['message']}. {tmp_path}/run/diverged.pt has the batches, ")
    read = [[*config.build_task().batch("train", 16)]]  # the last one that was skipped
    torch.testing.assert_close(about["batches"]["lower"], read, rtol=0, atol=0, equal_nan=True)
    losses = [r["loss"] for r in read_records(tmp_path / "run") if r.get("level") == "lower"]
    assert None not in losses[:7]
    assert losses[7:] == [None] * 9, "the tenth stops the run"
    assert derive_from(tmp_path / "run").choices.keys() == CANDIDATES.keys()
    with pytest.raises(DivergedError):
        run_search(tmp_path / "run", config, resume=True)


def test_a_learning_rate_that_is_lowered_is_recorded_and_resumed(tmp_path: Path) -> None:
    lower = "search.levels.lower"
    config = toy.config(*SHORT, f"{lower}.optimizer.lr=1e38", f"{lower}.backoff=1e-40", f"{lower}.patience=3")
    run_search(tmp_path / "whole", config)
    records = read_records(tmp_path / "whole")
    assert [r for r in records if r["kind"] == "backoff"] == [
        {"kind": "backoff", "step": 3, "level": "lower", "factor": 1e-40}
    ]
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", config, Stop(5))
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    assert not (tmp_path / "run" / "diverged.pt").exists()


def full_disk(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """The disk is full from the given checkpoint on, in the middle of its file."""
    left = [saves]

    def write_atomic(path: Path, write: Callable[[IO[bytes]], object], keep: Path | None = None) -> None:
        def fail(file: IO[bytes]) -> None:
            file.write(b"PK")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        left[0] -= 1
        files.write_atomic(path, write if left[0] >= 0 else fail, keep)

    monkeypatch.setattr(checkpoint, "write_atomic", write_atomic)


def test_a_full_disk_keeps_the_last_checkpoint(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy.config(*SHORT)
    with monkeypatch.context() as patch:
        full_disk(patch, 3)  # the first is of the beginning
        with pytest.raises(InvalidFileError, match=r"run/checkpoints/last\.pt: cannot be written: No space left"):
            run_search(tmp_path / "run", config)
    assert last(tmp_path / "run")["step"] == 6
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["last.pt", "previous.pt"]
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(whole, tmp_path / "run")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes in memory."""
    (path := tmp_path / "disk").mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", path)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", path], check=True)


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def test_a_disk_that_is_full_or_read_only_leaves_the_run_intact(whole: Path, disk: Path, tmp_path: Path) -> None:
    config, run = toy.config(*SHORT), disk / "run"
    with pytest.raises(Stopped):
        run_search(run, config, Stop(4))
    before = last(run)
    with (disk / "other").open("wb", buffering=0) as other, suppress(OSError):
        while True:
            other.write(bytes(4096))
    with pytest.raises(InvalidFileError, match=r"run/.*: cannot be written: No space left on device; fix this and try"):
        run_search(run, config, resume=True)
    assert same(last(run), before)
    assert any("MB are free" in finding.problem for finding in examine(run).findings)
    (disk / "other").unlink()
    mount("-o", "remount,ro", disk)
    with pytest.raises(InvalidFileError, match=r"run/.*: cannot be written: Read-only file system"):
        run_search(run, config, resume=True)
    (finding,) = examine(run).findings
    assert (finding.problem, finding.hinders) == ("the folder cannot be written", True)
    with pytest.raises(InvalidFileError, match=r"new.*: cannot be written: Read-only file system"):
        run_search(disk / "new", config)
    mount("-o", "remount,rw", disk)
    run_search(run, config, resume=True)
    assert_equal_runs(whole, run)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.derivation=strongst", "unknown derivation 'strongst'.*'strongest'"),
        ("search.derivation={name: strongest, most: 1}", "derivation.most "),
        ("search.derivation=test_best_pair", "'test_best_pair' needs 'evaluate'"),
        ("search.at_most={scal: 1}", "unknown candidate of a limit 'scal'.*'scale'"),
        (f"{UPPER}.loss=fusd", "unknown loss of level 'upper' 'fusd'.*did you mean 'fused'"),
        (f"{UPPER}.split=vall", "unknown split 'vall'.*did you mean"),
        (f"{UPPER}.parameters=[arhc.*]", "level 'upper' owns no parameters"),
        (f"{UPPER}.hypergradient.midle={{name: unrolled}}", "got 'midle'.*'middle'"),
        ("search.relaxation={name: gumbel, temprature: 3}", "temprature .*'temperature'"),
        ("search.relaxation=softmx", "unknown relaxation 'softmx'.*'softmax'"),
        ("task.batsh=3", "task: unknown field 'batsh'.*'batch'"),
        ("task.name=toi", "unknown task 'toi'.*'toy'"),
    ],
)
def test_a_configuration_that_cannot_work_says_so_before_anything_is_recorded(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(NASError, match=message):
        run_search(tmp_path / "run", toy.config(*SHORT, "search.validation_batches=0", override))
    assert read_records(tmp_path / "run") == []


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def garbled(data: bytes) -> bytes:
    """With a line, or 400 bytes (padding between tensors is shorter), of something else in the middle."""
    lines = data.split(b"\n")
    if len(lines) > 2 and not data.startswith(b"PK"):
        return b"\n".join([lines[0], b'{"kind": \xff', *lines[2:]])
    return data[: len(data) // 2] + b"not what it was here" * 20 + data[len(data) // 2 + 400 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda data: data[: len(data) // 5],
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by a line": lambda data: data[: data.rstrip(b"\n").rfind(b"\n") + 1],
    "emptied": lambda data: b"",
    "garbled": garbled,
    "removed": lambda data: None,
}
COPIED = {"versions.yaml", "genotypes/step-000002.yaml"}
"""Files that a checkpoint has a copy of."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, Path]:
    config, folder = toy.config("search.steps=6", "search.epochs=3"), tmp_path_factory.mktemp("stopped")

    run_search(folder / "whole", config)
    with pytest.raises(Stopped):
        run_search(folder / "run", config, Stop(5))
    return config, folder / "whole", folder / "run"


@pytest.fixture
def stopped(originals: tuple[Config, Path, Path], tmp_path: Path) -> tuple[Config, Path, Path]:
    """A configuration, its search without interruption, and a copy of one that was stopped after step 5 of 6."""
    config, whole, begun = originals
    return config, whole, shutil.copytree(begun, tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "checkpoints/last.pt", "checkpoints/previous.pt", *sorted(COPIED)]
)
def test_a_damaged_file_is_made_good_or_refused(
    name: str, damage: str, stopped: tuple[Config, Path, Path], recwarn: pytest.WarningsRecorder
) -> None:
    """Resumed with any file of its folder damaged, a run ends as the uninterrupted one, or nothing is lost."""
    config, whole, run = stopped
    whole_file = (run / name).read_bytes()
    damaged = DAMAGES[damage](whole_file)
    if damaged is None:
        (run / name).unlink()
    else:
        assert damaged != whole_file
        (run / name).write_bytes(damaged)
    harmless = name.endswith(".pt") or (name in COPIED and damaged is None)
    harmless |= name == "metrics.jsonl" and damage in ("cut in half", "cut by a line")  # of what can be made again
    if not harmless:
        before = contents(run)
        with pytest.raises(NASError, match=re.escape(str(run))) as error:
            run_search(run, config, resume=True)
        assert "\n" not in str(error.value)
        assert name in str(error.value) or name == "config.yaml"
        after = contents(run)
        after.pop(Path("metrics.jsonl") if (name, damaged) == ("metrics.jsonl", None) else Path("none"), None)
        assert after == before
        (run / name).write_bytes(whole_file)
    run_search(run, config, resume=True)
    told = [str(warning.message) for warning in recwarn]
    quiet = name == "checkpoints/previous.pt" or (name, damage) == ("metrics.jsonl", "cut by a line")
    assert len(told) == (harmless and not quiet)
    assert all(f"{run / name}: " in text for text in told)
    assert_equal_runs(whole, run)


def test_both_checkpoints_damaged_lose_nothing(stopped: tuple[Config, Path, Path]) -> None:
    config, _, run = stopped
    for name in ("last.pt", "previous.pt"):
        path = run / "checkpoints" / name
        path.write_bytes(path.read_bytes()[:-100])
    before = contents(run)
    with pytest.raises(InvalidFileError, match=r"last\.pt: damaged, or no checkpoint"):
        run_search(run, config, resume=True)
    with pytest.raises(InvalidFileError, match=r"last\.pt: damaged, or no checkpoint"):
        derive_from(run)
    assert contents(run) == before


@pytest.mark.parametrize(
    "field", ["kind", "step", "network", "levels", "random", "observers", "levels.optimizers", "levels.skipped"]
)
@pytest.mark.parametrize("value", [None, "text"])
def test_a_checkpoint_without_a_field_is_refused(field: str, value: object, stopped: tuple[Config, Path, Path]) -> None:
    config, _, run = stopped
    path = run / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    place, *rest = field.split(".")
    holder = content["state"][place] if rest else content["state"]
    if value is None:
        del holder[rest[0] if rest else place]
    else:
        holder[rest[0] if rest else place] = value
    checkpoint.save(path, content)
    with pytest.raises(NASError, match=re.escape(str(run))) as error:
        run_search(run, config, resume=True)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_version_of_the_space(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "Scale", lambda channels: nn.Conv2d(channels, channels, 1))
    with pytest.raises(InvalidFileError, match=r"last\.pt: weights of another network.*first\.scale"):
        derive_from(whole)


# Deriving and inheriting


def test_derive_from_a_finished_and_an_unfinished_search(whole: Path, tmp_path: Path) -> None:
    assert derive_from(whole) == Genotype.load(whole / "genotype.yaml")

    with pytest.raises(Stopped):
        run_search(tmp_path / "run", toy.config(*SHORT), Stop(8))
    assert derive_from(tmp_path / "run") == Genotype.load(whole / "genotypes" / "step-000006.yaml")


def test_derive_from_what_holds_no_search(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"nowhere: not the folder of a search \(it has no config\.yaml\)"):
        derive_from(tmp_path / "nowhere")
    with Run.create(tmp_path / "run", toy.config().dump(), 0) as run:
        with pytest.raises(ConfigError, match=r"run: no checkpoint yet"):
            derive_from(run.path)
        run.save_checkpoint({"kind": "retrain", "step": 0, "network": {}})
    with pytest.raises(ConfigError, match=r"run must be the folder of a search, got that of a retraining"):
        derive_from(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run must be the folder of a search, got that of a retraining"):
        run_search(tmp_path / "run", toy.config(), resume=True)


def test_a_search_that_began_with_given_weights_derives_without_their_files(tmp_path: Path) -> None:
    stem = {"weight": torch.randn(4, 2, 3, 3), "bias": torch.randn(4)}
    checkpoint.save_weights(tmp_path / "stem.safetensors", stem)
    begun: list[dict[str, Tensor]] = []
    config = toy.config("search.steps=2", f"initial.stem={tmp_path}/stem.safetensors")
    look = Log(lambda supernet: begun.append(copy.deepcopy(supernet.state_dict())))
    genotype = run_search(tmp_path / "run", config, look)
    assert torch.equal(begun[0]["network.stem.weight"], stem["weight"])
    (tmp_path / "stem.safetensors").unlink()
    assert derive_from(tmp_path / "run") == genotype
    assert torch.equal(
        inherit_from(tmp_path / "run", genotype).get_parameter("stem.bias"), begun[-1]["network.stem.bias"]
    )


def test_inherited_weights_are_those_of_the_last_checkpoint(whole: Path) -> None:
    genotype = Genotype.load(whole / "genotype.yaml")
    weights, network = last(whole)["network"], inherit_from(whole, genotype)
    assert network.training
    assert len(network.state_dict()) > 5
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[f"network.{name}"])
    with pytest.raises(ConfigError, match="options: genotype channels=5, supernet 4"):
        inherit_from(whole, Genotype(space="toy", choices=genotype.choices, options={"channels": 5}))


# Any space


@search_space("toy-volumes")
def volumes(choose: Chooser, /) -> nn.Module:
    """Convolutions over three dimensions, and a single decision."""
    return choose("only", {"a": lambda: nn.Conv3d(1, 1, 3, padding=1), "b": nn.Identity})


def test_convolutions_of_any_dimension() -> None:
    data = msgspec.to_builtins(toy.config())
    supernet = build_supernet(parse_config({**data, "space": "toy-volumes", "options": {}}))
    assert supernet(torch.zeros(1, 1, 4, 4, 4)).shape == (1, 1, 4, 4, 4)


@search_space("toy-narrow")
def narrow(choose: Chooser, /) -> nn.Module:
    """A convolution whose narrow forms cannot inherit its weights: its norm has groups of channels."""
    width = choose.width("wide", (2, 4))
    norm = nn.GroupNorm(1, width.channels)
    return nn.Sequential(nn.Conv2d(2, width.channels, 1), width, norm, nn.Conv2d(width.channels, 2, 1))


def test_a_width_that_cannot_be_inherited_stops_a_search_before_it_begins(tmp_path: Path) -> None:
    gone = (f"{key}=null" for key in ("search.levels.middle", f"{UPPER}.hypergradient", f"{UPPER}.regularizers"))
    config = toy.config(*SHORT, *gone)
    data = {**msgspec.to_builtins(config), "space": "toy-narrow", "options": {}}
    stopped = parse_config(data)
    with pytest.raises(SpaceError, match=r"^space 'toy-narrow': .* 'wide' = 2 does not .* search\.check=warn"):
        run_search(tmp_path / "run", stopped)
    assert not read_records(tmp_path / "run")
    warned = parse_config(data, ["search.check=warn"])
    with pytest.warns(UserWarning, match=r"^space 'toy-narrow': .* 'wide' = 2"):
        genotype = run_search(tmp_path / "warned", warned)
    assert set(genotype.choices) == {"wide"}
    assert run_search(tmp_path / "warned", warned, resume=True) == genotype, (
        "which says nothing: the search began before"
    )
