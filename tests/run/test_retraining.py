"""Retraining on a toy space: reproducible, resumable at any moment of any stage, each stage on its own parameters."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shipping
import toy
from nas.errors import ConfigError, DivergedError, InvalidFileError, NASError
from nas.genotype.file import Genotype
from nas.run import checkpoint
from nas.run.folder import Run, read_records
from nas.run.models import pack
from nas.run.retraining import WEIGHTS, build_network, evaluate, load_network, previews, retrain, weights_of
from nas.run.searching import build_supernet, search
from nas.run.task import Task
from nas.space.definition import find_space
from runs import NOISY, assert_equal_runs, last, run_retrain
from watch import Log, Stop, Stopped

STAGES = "retrain.stages"
SHORT = (f"{STAGES}.backbone.steps=5", f"{STAGES}.averaging.steps=4", "retrain.epochs=3")
GENOTYPE = Genotype(space="toy", options={"channels": 4}, choices=toy.DEAREST)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short retraining that nothing interrupts."""
    folder = tmp_path_factory.mktemp("retrain") / "whole"
    torch.manual_seed(1)
    run_retrain(folder, toy.config(*SHORT))
    return folder


def test_the_genotype_of_a_retraining_is_kept_in_its_checkpoint(whole: Path, tmp_path: Path) -> None:
    config = toy.config(*SHORT)
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "run", config, Stop(5))
    path = tmp_path / "run" / "genotype.yaml"
    path.write_text("changed")
    with pytest.raises(
        InvalidFileError, match=r"run/genotype\.yaml: changed since the checkpoint was saved; .*remove it"
    ):
        run_retrain(tmp_path / "run", config, resume=True)
    assert path.read_text() == "changed"
    path.unlink()
    with pytest.warns(UserWarning, match=r"run/genotype\.yaml: missing, written again from the checkpoint"):
        run_retrain(tmp_path / "run", config, resume=True)
    assert_equal_runs(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("part", "found"),
    [("frist.conv", "unknown part"), ("first.conv", "cannot be read"), ("second.linear", "cannot be read"),
     ("second.lineer", r"did you mean 'second\.linear'"), (".", "cannot be read"), ("head", "cannot be read")],
)  # fmt: skip
def test_initial_weights_of_a_part_are_found_or_refused(part: str, found: str, tmp_path: Path) -> None:
    """`first.conv` and `second.linear` are of other networks of the space: this one has `scale` and `tanh`."""
    config = toy.config(*SHORT, f"initial={{{part}: {tmp_path}/missing.safetensors}}")
    with pytest.raises(NASError, match=found):
        run_retrain(tmp_path / "run", config)
    with pytest.raises(NASError, match=found):
        build_supernet(config)


def test_a_retraining_can_begin_with_all_weights_of_another(whole: Path, tmp_path: Path) -> None:
    still = [f"retrain.stages.{stage}.level.optimizer.lr=0" for stage in ("backbone", "averaging")]
    config = toy.config(*SHORT, *still, f"initial={{.: {whole / WEIGHTS}}}")
    run_retrain(tmp_path / "run", config)
    names = [name for name, _ in find_space("toy").derived(NOISY).named_parameters()]
    ours, theirs = (checkpoint.load_weights(folder / WEIGHTS) for folder in (tmp_path / "run", whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in names)


def test_it_is_saved_as_often_as_asked_and_after_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = Run.save_checkpoint
    monkeypatch.setattr(Run, "save_checkpoint", lambda run, state: (saved.append(state["step"]), save(run, state)))
    run_retrain(tmp_path / "run", toy.config(*SHORT, "retrain.epochs=5"))
    assert saved == [0, 2, 4, 6, 8, 9]
    assert last(tmp_path / "run")["step"] == 9


def test_every_step_is_recorded_under_its_stage(tmp_path: Path) -> None:
    run_retrain(tmp_path / "run", toy.config(f"{STAGES}.backbone.steps=2", f"{STAGES}.averaging.steps=1"))
    assert [(r["step"], r["level"]) for r in read_records(tmp_path / "run")] == [
        (1, "backbone"),
        (2, "backbone"),
        (3, "averaging"),
    ]


def test_each_stage_changes_its_own_parameters_and_the_second_no_buffer(tmp_path: Path) -> None:
    states: list[dict[str, Tensor]] = []
    network = find_space("toy").derived(GENOTYPE)
    look = Log(lambda network: states.append(copy.deepcopy(network.state_dict())))
    run_retrain(tmp_path / "run", toy.config(*SHORT), look, genotype=GENOTYPE, initial=network)
    before, between, after = states[0], states[5], states[9]
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
    run_retrain(tmp_path / "both", config, genotype=GENOTYPE)
    first = toy.config(f"{STAGES}={{{stages[0]}}}")
    network = run_retrain(tmp_path / "first", first, genotype=GENOTYPE)
    again = run_retrain(tmp_path / "again", first, genotype=GENOTYPE, initial=network)
    weights = checkpoint.load_weights(tmp_path / "both" / WEIGHTS)
    for name, value in again.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "cut", config, Stop(4), genotype=GENOTYPE)  # its checkpoint is of step 3
    run_retrain(tmp_path / "cut", config, genotype=GENOTYPE, resume=True)
    assert_equal_runs(tmp_path / "both", tmp_path / "cut")


# What it begins and ends with


def test_initial_weights_are_those_of_the_seed_or_of_the_given_network(tmp_path: Path) -> None:
    still = [f"{STAGES}.{stage}.level.optimizer.lr=0" for stage in ("backbone", "averaging")]
    config = toy.config(*SHORT, *still, "seed=3")
    with Run.create(tmp_path / "search", config.dump(), 0) as run:
        genotype = search(toy.config("search.steps=2"), run)
    for initial in (None, find_space("toy").derived(genotype, seed=7)):
        expected = find_space("toy").derived(genotype, seed=3 if initial is None else 7)
        network = run_retrain(tmp_path / str(initial is None), config, genotype=genotype, initial=initial)
        assert initial is None or network is initial
        for name, value in expected.named_parameters():
            assert torch.equal(value, network.get_parameter(name)), name


def test_the_network_has_the_options_of_the_retraining(tmp_path: Path) -> None:
    config = toy.config(*SHORT, "retrain.options.channels=6")
    network = run_retrain(tmp_path / "run", config)
    assert network.get_parameter("stem.weight").shape == (6, 2, 3, 3)
    assert Genotype.load(tmp_path / "run" / "genotype.yaml").options == {"channels": 6}
    assert load_network(tmp_path / "run").get_parameter("stem.weight").shape == (6, 2, 3, 3)
    run_retrain(tmp_path / "run", config, resume=True)
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
        run_retrain(tmp_path / "run", config, Stop(0), initial=other[1])
    run_retrain(tmp_path / "run", config, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_the_trained_network_is_read_back(whole: Path, tmp_path: Path) -> None:
    network = run_retrain(tmp_path / "run", toy.config(*SHORT), genotype=GENOTYPE)
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
    after = evaluate(run_retrain(tmp_path / "run", config, genotype=GENOTYPE), task)
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
    bare = type("Bare", (toy.ToyTask,), {"previews": Task.previews})
    assert previews(find_space("toy").derived(NOISY), bare(toy.ToyConfig())) == []


# Validation, averaged weights, and time

TRAIN = tuple(f"{STAGES}.{stage}.level.split=train" for stage in ("backbone", "averaging"))


@pytest.mark.parametrize("ema", ["null", "0.7"])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_result_has_the_weights_with_the_best_validation_score(keep: str, ema: str, tmp_path: Path) -> None:
    """Of averaged weights if there are any. The second stage makes them worse: its learning rate is too high."""
    config = toy.config(
        *SHORT, *TRAIN, f"retrain.validation={{every: 2, batches: 3, keep: {keep}}}", f"retrain.ema={ema}",
        f"{STAGES}.averaging.level.optimizer.lr=300",
    )  # fmt: skip
    run_retrain(tmp_path / "run", config)
    scored = {r["step"]: r for r in read_records(tmp_path / "run") if r.get("observer") == "validation"}
    assert [*scored] == [2, 4, 6, 8, 9]
    best = max(scored, key=lambda step: scored[step]["score"])
    assert best != 9
    assert scored[9]["best_epoch"] == best
    task, network = config.build_task(), load_network(tmp_path / "run")
    with torch.no_grad():
        again = [task.measure(network, task.batch("val", index))["score"] for index in range(3)]
    assert sum(again) / 3 == pytest.approx(scored[best if keep == "best" else 9]["score"], rel=1e-6)
    weights = [checkpoint.load_weights(tmp_path / "run" / name) for name in (WEIGHTS, "checkpoints/best.safetensors")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]) == (keep == "best")


def test_each_stage_ends_with_its_average_and_the_next_begins_there(tmp_path: Path) -> None:
    """The average is that of the raw weights of a run without one, in float64; also that of a statistic of a norm."""

    def weights(folder: Path, *changes: str) -> list[dict[str, Tensor]]:
        states: list[dict[str, Tensor]] = []
        look = Log(lambda network: states.append({k: v.double() for k, v in network.state_dict().items()}))
        run_retrain(folder, toy.config(*SHORT, *changes), look, genotype=GENOTYPE)
        return states

    raw, averaged = weights(tmp_path / "raw"), weights(tmp_path / "averaged", "retrain.ema=0.3")
    for name in ("stem.weight", "norm.running_mean"):
        expected = raw[1][name]
        for t in range(1, 5):
            decay = min(0.3, t / (t + 10))
            expected = decay * expected + (1 - decay) * raw[t + 1][name]
        torch.testing.assert_close(averaged[5][name].float(), expected.float())
        assert not torch.equal(averaged[5][name], raw[5][name])
        assert torch.equal(averaged[9][name], averaged[5][name]), "the second stage does not have it"


@pytest.mark.parametrize("when", [0.0, 5.0])
def test_a_run_whose_time_is_spent_stops_after_a_step_with_a_network_and_goes_on(
    when: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumps by a second at each look, twice a step or so."""
    extra = ("retrain.ema=0.8", "retrain.validation.every=4", *TRAIN)
    config = toy.config(*SHORT, *extra)
    run_retrain(tmp_path / "whole", config)
    clock = iter(float(second) for second in range(1000))
    with monkeypatch.context() as patch:
        patch.setattr("nas.run.loop.time.monotonic", lambda: next(clock))
        run_retrain(tmp_path / "run", config, minutes=max(when, 0.01) / 60)
    step = last(tmp_path / "run")["step"]
    assert step == (1 if when == 0 else step)
    assert 1 <= step < 9
    assert read_records(tmp_path / "run")[-1] == {"step": step, "kind": "stopped", "steps": 9}
    assert load_network(tmp_path / "run") is not None
    run_retrain(tmp_path / "run", config, resume=True, minutes=5)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_losses_follow_the_progress_over_all_stages_and_resumed_runs_too(tmp_path: Path) -> None:
    seen: list[float] = []

    class Following(toy.ToyTask):
        def __init__(self) -> None:
            super().__init__(toy.ToyConfig())
            self.losses = dict.fromkeys(self.losses, self.loss)

        def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor], progress: float = 1.0) -> Tensor:
            seen.append(progress)
            return nn.functional.mse_loss(network(batch[0]), batch[1])

    with pytest.raises(Stopped):
        run_retrain(tmp_path / "run", toy.config(*SHORT), Stop(5), task=Following())
    run_retrain(tmp_path / "run", toy.config(*SHORT), resume=True, task=Following())
    # Each loss is evaluated once before the first step; the second run repeats what followed the last checkpoint.
    steps = [0, 0, *range(5), 0, 0, *range(3, 9)]
    checks = (0, 1, 7, 8)
    assert [v for i, v in enumerate(seen) if i not in checks] == pytest.approx(
        [step / 9 for i, step in enumerate(steps) if i not in checks]
    )


def test_the_best_network_of_a_run_that_was_killed_can_be_read(tmp_path: Path) -> None:
    config = toy.config(*SHORT, *TRAIN, "retrain.validation.every=2")
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "run", config, Stop(5))
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    with pytest.warns(UserWarning, match=r"run: the retraining has not ended; .* best epoch"):
        assert weights_of(tmp_path / "run") == best
    with pytest.warns(UserWarning, match="has not ended"):
        network = load_network(tmp_path / "run")
    assert all(torch.equal(each, network.state_dict()[k]) for k, each in checkpoint.load_weights(best).items())
    with pytest.raises(ConfigError, match=r"run: no retrained network \(it has no weights\.safetensors\)"):
        pack(tmp_path / "run", tmp_path / "model", shipping.card(tmp_path))
    assert not (tmp_path / "model").exists()
    best.unlink()
    with pytest.raises(Stopped):
        run_retrain(tmp_path / "run", config, Stop(5), resume=True)
    assert best.is_file()


@pytest.mark.parametrize(
    ("validation", "found"),
    [
        ("{split: test}", "validation.split must not be 'test'"),
        (
            "{split: val}",
            "validation.split must share no data with the split 'all', .*got 'val', with 1 in both such as 'val'",
        ),
        ("{split: all}", "validation.split .*got 'all', with 3 in both such as 'middle'"),
        ("{split: val, evry: 3}", "evry"),
    ],
)
def test_validation_data_are_not_trained_on_and_are_no_test_data(validation: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(NASError, match=found):
        run_retrain(tmp_path / "run", toy.config(*SHORT, f"retrain.validation={validation}"))


# What goes wrong


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(tmp_path: Path) -> None:
    config = toy.config("task.broken=7", "retrain.epochs=60")
    with pytest.raises(DivergedError, match=r"^level 'backbone' since step 7: 10 steps in a row not finite"):
        run_retrain(tmp_path / "run", config)
    state = last(tmp_path / "run")
    assert state["step"] == 17
    assert all(value.isfinite().all() for value in state["network"].values())
    with pytest.raises(DivergedError):
        run_retrain(tmp_path / "run", config, resume=True)
    with pytest.raises(ConfigError, match=r"run: no retrained network \(it has no weights\.safetensors\)"):
        load_network(tmp_path / "run")


def test_a_stage_without_a_step_leaves_no_network(tmp_path: Path) -> None:
    """Fewer steps than the patience, none of them finite; nor does to resume it make one."""
    config = toy.config("task.broken=0", "retrain.stages.backbone.steps=3")
    with pytest.raises(DivergedError, match=r"^level 'backbone' since step 0: 3 steps in a row not finite"):
        run_retrain(tmp_path / "run", config)
    with pytest.raises(DivergedError):
        run_retrain(tmp_path / "run", config, resume=True)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


@pytest.mark.parametrize(("lengths", "step"), [((5, 1), 5), ((3, 5), 8)], ids=["stage", "run"])
def test_patience_that_ends_with_the_last_step_stops_a_resumed_run_too(
    lengths: tuple[int, int], step: int, tmp_path: Path
) -> None:
    """No step is left that would notice it: the fourth batch and all later ones are broken."""
    steps = (f"{STAGES}.{stage}.steps={n}" for stage, n in zip(("backbone", "averaging"), lengths, strict=True))
    patience = (f"{STAGES}.{stage}.level.patience=2" for stage in ("backbone", "averaging"))
    config = toy.config("task.broken=3", "retrain.epochs=1", *steps, *patience)
    with pytest.raises(DivergedError, match="since step 3: 2 steps in a row not finite"):
        run_retrain(tmp_path / "run", config)
    assert last(tmp_path / "run")["step"] == step
    with pytest.raises(DivergedError, match="since step 3: 2 steps in a row not finite"):
        run_retrain(tmp_path / "run", config, resume=True)
    assert not (tmp_path / "run" / WEIGHTS).exists()


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
        run_retrain(tmp_path / "a", toy.config(), genotype=other)
    unknown = Genotype(space="toy", options={"channels": 4}, choices={"first": "cov", "second": "tanh"})
    with pytest.raises(NASError, match=r"unknown candidate of 'first' 'cov'.*did you mean 'conv'"):
        run_retrain(tmp_path / "b", toy.config(), genotype=unknown)
    with pytest.raises(ConfigError, match=r"whole: was started with another genotype"):
        run_retrain(whole, toy.config(*SHORT), genotype=GENOTYPE, resume=True)


def test_the_folder_of_a_search(tmp_path: Path) -> None:
    config = toy.config("search.steps=2")
    with Run.create(tmp_path / "run", config.dump(), 0) as run:
        genotype = search(config, run)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"run must be the folder of a retraining, got that of a search"):
        run_retrain(tmp_path / "run", config, genotype=genotype, resume=True)
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
