"""Retraining on a toy space: reproducible, resumable at any moment of any stage, each stage on its own parameters."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import toy
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from nas import checkpoint
from nas.config import Config
from nas.errors import ConfigError, DivergedError, InvalidFileError, NASError
from nas.genotype import Genotype
from nas.multilevel import Moved
from nas.retrain import WEIGHTS, OnStep, build_network, evaluate, load_network, previews, retrain
from nas.run import Run, read_records
from nas.search import build_supernet, search
from nas.space import find_space

STAGES = "retrain.stages"
SHORT = (f"{STAGES}.backbone.steps=5", f"{STAGES}.averaging.steps=4", "retrain.epochs=3")
GENOTYPE = Genotype(space="toy", options={"channels": 4}, choices=toy.DEAREST)
NOISY = Genotype(space="toy", options={"channels": 4}, choices=toy.CHEAPEST)
"""With dropout."""


class Stopped(Exception):
    """In place of a kill."""


def run_retrain(
    folder: Path, config: Config, genotype: Genotype = NOISY, on_step: OnStep | None = None, **options: Any
) -> nn.Module:
    with Run.create(folder, config.dump(), config.seed) as run:
        return retrain(config, genotype, run, on_step, **options)


def resume(folder: Path, config: Config, genotype: Genotype = NOISY) -> nn.Module:
    with Run.open(folder, config.dump()) as run:
        return retrain(config, genotype, run)


def last(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = checkpoint.load(folder / "checkpoints" / "last.pt")["state"]
    return state


def assert_equal_runs(a: Path, b: Path) -> None:
    for name in ("metrics.jsonl", "genotype.yaml", "config.yaml", WEIGHTS):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    (ours, structure), (theirs, other) = (tree_flatten(last(run)) for run in (a, b))
    assert structure == other
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y) if isinstance(x, Tensor) else x == y


def stop_at(stop: int) -> OnStep:
    def on_step(step: int, stage: str, moved: Moved | None) -> None:
        if step == stop and (moved is not None or stop == 0):
            raise Stopped

    return on_step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short retraining that nothing interrupts."""
    folder = tmp_path_factory.mktemp("retrain") / "whole"
    torch.manual_seed(1)
    run_retrain(folder, toy.config(*SHORT))
    return folder


def test_equal_seeds_give_equal_runs(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    before = torch.get_rng_state()
    run_retrain(tmp_path / "again", toy.config(*SHORT))
    assert_equal_runs(whole, tmp_path / "again")
    assert torch.equal(before, torch.get_rng_state()), "the caller's random state moved"
    run_retrain(tmp_path / "other", toy.config(*SHORT, "seed=1"))
    assert (whole / WEIGHTS).read_bytes() != (tmp_path / "other" / WEIGHTS).read_bytes()


@pytest.fixture(scope="module", params=[3, 9])
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A whole run, and its steps from one checkpoint to the next: where it is 1, one lies just where a stage ends."""
    folder = tmp_path_factory.mktemp("cut") / "whole"
    run_retrain(folder, toy.config(*SHORT, f"retrain.epochs={request.param}"))
    return folder, 9 // request.param


@pytest.mark.parametrize("stop", range(10))
def test_a_run_stopped_after_any_step_goes_on_as_if_nothing_had_been(
    stop: int, cut: tuple[Path, int], tmp_path: Path
) -> None:
    whole, every = cut
    config = toy.config(*SHORT, f"retrain.epochs={9 // every}")
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "run", config, on_step=stop_at(stop))
    assert last(tmp_path / "run")["step"] == max(stop - 1, 0) // every * every, "the step itself has not been saved"
    torch.manual_seed(stop)
    resume(tmp_path / "run", config)
    assert_equal_runs(whole, tmp_path / "run")


@pytest.mark.parametrize("stop", [1, 4, 5, 8])  # also in the last step of a stage
def test_a_run_that_is_asked_to_stop_saves_the_step(stop: int, cut: tuple[Path, int], tmp_path: Path) -> None:
    whole, every = cut
    config = toy.config(*SHORT, f"retrain.epochs={9 // every}")
    done: list[int] = []
    with Run.create(tmp_path / "run", config.dump(), config.seed) as run:
        run.stop = lambda: done[-1] == stop
        with pytest.raises(KeyboardInterrupt):
            retrain(config, NOISY, run, lambda step, stage, moved: done.append(step))
    assert last(tmp_path / "run")["step"] == stop == done[-1]
    resume(tmp_path / "run", config)
    assert_equal_runs(whole, tmp_path / "run")


def test_the_genotype_of_a_retraining_is_kept_in_its_checkpoint(whole: Path, tmp_path: Path) -> None:
    config = toy.config(*SHORT)
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "run", config, on_step=stop_at(5))
    path = tmp_path / "run" / "genotype.yaml"
    path.write_text("changed")
    with pytest.raises(
        InvalidFileError, match=r"run/genotype\.yaml: changed since the checkpoint was saved; .*remove it"
    ):
        resume(tmp_path / "run", config)
    assert path.read_text() == "changed"
    path.unlink()
    with pytest.warns(UserWarning, match=r"run/genotype\.yaml: missing, written again from the checkpoint"):
        resume(tmp_path / "run", config)
    assert_equal_runs(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("part", "found"),
    [("frist.conv", "unknown part"), ("first.conv", "cannot be read"), ("second.linear", "cannot be read"),
     ("second.lineer", r"did you mean 'second\.linear'"), (".", "cannot be read"), ("head", "cannot be read")],
)  # fmt: skip
def test_initial_weights_of_a_part_are_found_or_refused(part: str, found: str, tmp_path: Path) -> None:
    """`first.conv` and `second.linear` are of other networks of the space: this one has `scale` and `tanh`."""
    genotype = Genotype(space="toy", options={"channels": 4}, choices=toy.CHEAPEST)
    config = toy.config(*SHORT, f"initial={{{part}: {tmp_path}/missing.safetensors}}")
    with pytest.raises(NASError, match=found):
        run_retrain(tmp_path / "run", config, genotype)
    with pytest.raises(NASError, match=found):
        build_supernet(config)


def test_a_retraining_can_begin_with_all_weights_of_another(whole: Path, tmp_path: Path) -> None:
    still = [f"retrain.stages.{stage}.level.optimizer.lr=0" for stage in ("backbone", "averaging")]
    config = toy.config(*SHORT, *still, f"initial={{.: {whole / WEIGHTS}}}")
    run_retrain(tmp_path / "run", config)
    names = [name for name, _ in find_space("toy").derived(NOISY).named_parameters()]
    ours, theirs = (checkpoint.load_weights(folder / WEIGHTS) for folder in (tmp_path / "run", whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in names)


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    NOISY.save(tmp_path / "genotype.yaml")
    run_retrain(tmp_path / "whole", toy.config())
    size = (tmp_path / "whole" / "metrics.jsonl").stat().st_size
    arguments = ["retrain", str(tmp_path / "genotype.yaml"), "--import", "toy"]  # the space's own configuration
    code = processes.run_with_kills(arguments, tmp_path / "run", size, [0.2, 0.6, 0.75, 0.95], seed=1)
    assert code == 0
    records = (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert b'"kind":"evaluate"' in records[-1]  # the command measures the network as well
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"".join(records[:-1]))
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_finished_run_resumed_stays_what_it_is(whole: Path, tmp_path: Path) -> None:
    run_retrain(tmp_path / "run", toy.config(*SHORT))
    resume(tmp_path / "run", toy.config(*SHORT))
    assert_equal_runs(whole, tmp_path / "run")


def test_it_is_saved_as_often_as_asked_and_after_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = Run.save_checkpoint
    monkeypatch.setattr(Run, "save_checkpoint", lambda run, state: (saved.append(state["step"]), save(run, state)))
    run_retrain(tmp_path / "run", toy.config(*SHORT, "retrain.epochs=5"))
    assert saved == [0, 2, 4, 6, 8, 9]
    assert last(tmp_path / "run")["step"] == 9


def test_the_caller_hears_of_every_stage_and_step(tmp_path: Path) -> None:
    heard: list[tuple[int, str, bool]] = []
    config = toy.config(f"{STAGES}.backbone.steps=2", f"{STAGES}.averaging.steps=1")
    run_retrain(tmp_path / "run", config, on_step=lambda step, stage, moved: heard.append((step, stage, moved is None)))
    assert heard == [
        (0, "backbone", True),
        (1, "backbone", False),
        (2, "backbone", False),
        (2, "averaging", True),
        (3, "averaging", False),
    ]
    assert [(r["step"], r["level"]) for r in read_records(tmp_path / "run")] == [
        (1, "backbone"),
        (2, "backbone"),
        (3, "averaging"),
    ]


def test_each_stage_changes_its_own_parameters_and_the_second_no_buffer(tmp_path: Path) -> None:
    states: list[dict[str, Tensor]] = []
    network = find_space("toy").derived(GENOTYPE)
    before = copy.deepcopy(network.state_dict())

    def on_step(step: int, stage: str, moved: Moved | None) -> None:
        if stage == "averaging" and moved is None:
            states.append(copy.deepcopy(network.state_dict()))

    run_retrain(tmp_path / "run", toy.config(*SHORT), GENOTYPE, on_step, initial=network)
    (between,), after = states, network.state_dict()
    assert any(name.endswith("running_mean") for name in after)
    for name in after:
        own = name.startswith("averaging.")
        assert torch.equal(before[name], between[name]) == own, name
        assert torch.equal(between[name], after[name]) == (not own), name


def test_stages_begin_with_optimizers_of_their_own(tmp_path: Path) -> None:
    """Two stages on the same parameters: the second has none of the first one's momentum, however it is cut."""
    level = "{parameters: ['*'], loss: fused, split: all, optimizer: {name: sgd, lr: 0.1, momentum: 0.9}}"
    stages = [f"{name}: {{steps: 3, level: {level}}}" for name in ("first", "second")]
    config = toy.config(f"{STAGES}={{{', '.join(stages)}}}", "retrain.epochs=6")
    run_retrain(tmp_path / "both", config, GENOTYPE)
    first = toy.config(f"{STAGES}={{{stages[0]}}}")
    network = run_retrain(tmp_path / "first", first, GENOTYPE)
    again = run_retrain(tmp_path / "again", first, GENOTYPE, initial=network)
    weights = checkpoint.load_weights(tmp_path / "both" / WEIGHTS)
    for name, value in again.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "cut", config, GENOTYPE, stop_at(4))  # its checkpoint is of step 3
    resume(tmp_path / "cut", config, GENOTYPE)
    assert_equal_runs(tmp_path / "both", tmp_path / "cut")


# What it begins and ends with


def test_initial_weights_are_those_of_the_seed_or_of_the_given_network(tmp_path: Path) -> None:
    still = [f"{STAGES}.{stage}.level.optimizer.lr=0" for stage in ("backbone", "averaging")]
    config = toy.config(*SHORT, *still, "seed=3")
    with Run.create(tmp_path / "search", config.dump(), 0) as run:
        genotype = search(toy.config("search.steps=2"), run)
    for initial in (None, find_space("toy").derived(genotype, seed=7)):
        expected = find_space("toy").derived(genotype, seed=3 if initial is None else 7)
        network = run_retrain(tmp_path / str(initial is None), config, genotype, initial=initial)
        assert initial is None or network is initial
        for name, value in expected.named_parameters():
            assert torch.equal(value, network.get_parameter(name)), name


def test_the_network_has_the_options_of_the_retraining(tmp_path: Path) -> None:
    config = toy.config(*SHORT, "retrain.options.channels=6")
    network = run_retrain(tmp_path / "run", config)
    assert network.get_parameter("stem.weight").shape == (6, 2, 3, 3)
    assert Genotype.load(tmp_path / "run" / "genotype.yaml").options == {"channels": 6}
    assert load_network(tmp_path / "run").get_parameter("stem.weight").shape == (6, 2, 3, 3)
    resume(tmp_path / "run", config)
    with pytest.raises(ConfigError, match="option of space 'toy' 'chanels'"):
        toy.config("retrain.options.chanels=6")


def test_the_task_has_the_fields_of_the_retraining(tmp_path: Path) -> None:
    changed = toy.config(*SHORT, "retrain.task.batch=7")
    run_retrain(tmp_path / "run", changed)
    same = toy.config(*SHORT, "task.batch=7")
    run_retrain(tmp_path / "same", same)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (tmp_path / "same" / "metrics.jsonl").read_text()


def test_a_resumed_run_needs_no_initial_network(tmp_path: Path) -> None:
    config = toy.config(*SHORT)
    other = [find_space("toy").derived(NOISY, seed=7) for _ in range(2)]
    run_retrain(tmp_path / "whole", config, initial=other[0])
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "run", config, on_step=stop_at(0), initial=other[1])
    resume(tmp_path / "run", config)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_the_trained_network_is_read_back(whole: Path, tmp_path: Path) -> None:
    network = run_retrain(tmp_path / "run", toy.config(*SHORT), GENOTYPE)
    loaded = load_network(tmp_path / "run")
    assert network.training
    assert not loaded.training
    x = torch.randn(3, 2, 5, 5)
    assert torch.equal(loaded(x), network.eval()(x))
    for parameter in (*network.parameters(), *loaded.parameters()):
        assert parameter.is_contiguous()
    assert Genotype.load(tmp_path / "run" / "genotype.yaml") == GENOTYPE


def test_a_network_trains(tmp_path: Path) -> None:
    config = toy.config(f"{STAGES}.backbone.steps=150", f"{STAGES}.averaging.steps=50")
    task = config.build_task()
    before = evaluate(find_space("toy").derived(GENOTYPE), task)
    after = evaluate(run_retrain(tmp_path / "run", config, GENOTYPE), task)
    assert -after["score"] < 0.2 * -before["score"]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_network_as_it_was(training: bool) -> None:
    network = find_space("toy").derived(NOISY).train(training)
    before = copy.deepcopy(network.state_dict())
    task = toy.config().build_task()
    assert evaluate(network, task) == evaluate(network, task)
    assert [preview.title for preview in previews(network, task)] == ["noise"]
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.is_grad_enabled()


def test_a_task_without_previews_shows_nothing() -> None:
    assert previews(find_space("toy").derived(NOISY), object()) == []  # type: ignore[arg-type]


# What goes wrong


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(tmp_path: Path) -> None:
    config = toy.config("task.broken=7", "retrain.epochs=60")
    with pytest.raises(DivergedError, match=r"^level 'backbone' since step 7: 10 steps in a row not finite"):
        run_retrain(tmp_path / "run", config)
    state = last(tmp_path / "run")
    assert state["step"] == 17
    assert all(value.isfinite().all() for value in state["network"].values())
    with pytest.raises(DivergedError):
        resume(tmp_path / "run", config)
    with pytest.raises(ConfigError, match=r"run: no retrained network \(it has no weights\.safetensors\)"):
        load_network(tmp_path / "run")


def test_a_stage_without_a_step_leaves_no_network(tmp_path: Path) -> None:
    """Fewer steps than the patience, none of them finite; nor does to resume it make one."""
    config = toy.config("task.broken=0", "retrain.stages.backbone.steps=3")
    with pytest.raises(DivergedError, match=r"^level 'backbone' since step 0: 3 steps in a row not finite"):
        run_retrain(tmp_path / "run", config)
    with pytest.raises(DivergedError):
        resume(tmp_path / "run", config)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_network_whose_output_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    """It trains: only eval mode reads the statistics of its norm."""
    config = toy.config("retrain.stages.backbone.steps=3", "retrain.stages.averaging=null")
    genotype = Genotype(space="toy", choices=toy.DEAREST)
    network: Any = build_network(config, genotype)
    network.norm.momentum = 0.0
    network.norm.running_var.fill_(-1.0)
    with Run.create(tmp_path / "run", "", 0) as run:  # noqa: SIM117
        with pytest.raises(DivergedError, match=r"weights\.safetensors was not written: the network's output must be"):
            retrain(config, genotype, run, initial=network)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{STAGES}={{}}", "retrain.stages is empty"),
        (f"{STAGES}.averaging.level.loss=fusd", "unknown loss of level 'averaging' 'fusd'.*'fused'"),
        (f"{STAGES}.averaging.level.parameters=[avg.*]", "level 'averaging' owns no parameters"),
        (f"{STAGES}.averaging.level.split=test", "unknown split 'test'"),
        ("task.batsh=3", "task: unknown field 'batsh'.*'batch'"),
    ],
)
def test_a_configuration_that_cannot_work_says_so_before_anything_is_recorded(
    override: str, message: str, tmp_path: Path
) -> None:
    """Also one whose mistake is in a later stage."""
    with pytest.raises(NASError, match=message):
        run_retrain(tmp_path / "run", toy.config(*SHORT, override))
    assert read_records(tmp_path / "run") == []
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_genotype_that_does_not_fit(whole: Path, tmp_path: Path) -> None:
    other = Genotype(space="tmics", choices={})
    with pytest.raises(ConfigError, match="the configuration is for space 'toy', the genotype of 'tmics'"):
        run_retrain(tmp_path / "a", toy.config(), other)
    unknown = Genotype(space="toy", options={"channels": 4}, choices={"first": "cov", "second": "tanh"})
    with pytest.raises(NASError, match=r"unknown candidate of 'first' 'cov'.*did you mean 'conv'"):
        run_retrain(tmp_path / "b", toy.config(), unknown)
    with pytest.raises(ConfigError, match=r"whole: was started with another genotype"):
        resume(whole, toy.config(*SHORT), GENOTYPE)


def test_the_folder_of_a_search(tmp_path: Path) -> None:
    config = toy.config("search.steps=2")
    with Run.create(tmp_path / "run", config.dump(), 0) as run:
        genotype = search(config, run)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"run: not the folder of a retraining, but of a search"):
        resume(tmp_path / "run", config, genotype)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    with pytest.raises(ConfigError, match=r"run: no retrained network"):
        load_network(tmp_path / "run")


def test_weights_that_are_damaged_or_of_another_network(tmp_path: Path) -> None:
    run_retrain(tmp_path / "run", toy.config(*SHORT))
    GENOTYPE.save(tmp_path / "run" / "genotype.yaml")
    with pytest.raises(
        InvalidFileError, match=r"weights\.safetensors: weights of another network.*first\.conv"
    ) as error:
        load_network(tmp_path / "run")
    assert "\n" not in str(error.value)
    (tmp_path / "run" / WEIGHTS).write_bytes(b"garbage")
    with pytest.raises(InvalidFileError, match=r"weights\.safetensors: damaged, or no safetensors file"):
        load_network(tmp_path / "run")
