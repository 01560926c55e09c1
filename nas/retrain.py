"""Retraining: train the derived network of a genotype file, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from nas import checkpoint
from nas.config import Config
from nas.errors import ConfigError, DivergedError
from nas.finite import require_finite
from nas.genotype import Genotype
from nas.multilevel import Moved, Multilevel
from nas.planner.layout import channels_last
from nas.probing import in_mode
from nas.run import GENOTYPE, LAST, Run
from nas.space import find_space
from nas.task import TEST, Preview, Task, of_split, placed

WEIGHTS = "weights.safetensors"

OnStep = Callable[[int, str, Moved | None], None]
"""Called where a stage begins or goes on, and after each of its steps: (steps done over all stages, name of the stage,
what the step did)."""


def retrain(
    config: Config,
    genotype: Genotype,
    run: Run,
    on_step: OnStep | None = None,
    *,
    initial: nn.Module | None = None,
    scored: str = TEST,
) -> nn.Module:
    """Train the network that `genotype` derives, with `retrain.options`, through the configured stages; goes on from
    the run's last checkpoint.

    The network starts from the initial weights of the configured seed, or is `initial`, such as one that inherits a
    supernet's weights. A stage changes the parameters of its level alone; with `mode: eval` no buffers either. The run
    folder receives metrics, checkpoints, the genotype, and `weights.safetensors`. Before anything is recorded, raises
    `ConfigError` where the configuration does not fit, and what the task's `check` of the split that is to be `scored`
    does; `DivergedError`, once the last state is saved, if the losses stop being finite or no step of a stage was, or
    for a network whose output on the task's example is not: it is not written then.
    """
    if config.space != genotype.space:
        raise ConfigError(f"the configuration is for space '{config.space}', the genotype of '{genotype.space}'")
    genotype = config.retrained(genotype)
    task = config.build_task(retraining=True)
    if hasattr(task, "check"):
        of_split(task.check, scored)()
    network = (build_network(config, genotype) if initial is None else initial).to(config.torch_device())
    with channels_last(network):
        _train(config, genotype, run, on_step, network, task)
    return network


def _train(
    config: Config, genotype: Genotype, run: Run, on_step: OnStep | None, network: nn.Module, task: Task
) -> None:
    precision = config.retrain.precision
    stages = {
        name: Multilevel(network, {name: stage.level}, task.losses, task.batch, stage.steps, precision=precision)
        for name, stage in config.retrain.stages.items()
    }
    if not stages:
        raise ConfigError("retrain.stages is empty: nothing would be trained")

    def save(step: int, stage: Multilevel) -> None:
        state = {"step": step, "network": network.state_dict(), "level": stage.state_dict()}
        run.save_checkpoint({**state, "random": checkpoint.random_state()})

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        state = run.resume()
        start = 0
        if state is None:
            run.save_genotype(genotype)
            save(0, next(iter(stages.values())))  # now, since a resumed run is not given `initial` again
        else:
            _check(run, genotype, "network" in state)
            with checkpoint.restoring(run.path / LAST):
                start = int(state["step"])
                checkpoint.load_into(network, state["network"], run.path / LAST)
                checkpoint.set_random_state(state["random"])
        done = 0
        for name, stage in stages.items():
            if state is not None and done < start <= done + stage.steps:
                with checkpoint.restoring(run.path / LAST):
                    stage.load_state_dict(state["level"])
            steps = range(max(start, done) + 1, done + stage.steps + 1)
            if on_step is not None and steps:
                on_step(steps[0] - 1, name, None)
            for step in steps:
                try:
                    moved = stage.step(step - done - 1)
                except DivergedError:
                    save(step, stage)
                    raise
                for move in moved.values():
                    run.record("train", step, level=name, loss=move.loss, gradient=move.gradient)
                if on_step is not None:
                    on_step(step, name, moved.get(name))
                stop = run.stop()
                if config.retrain.ends_epoch(step) or stop:
                    save(step, stage)
                if stop:
                    raise KeyboardInterrupt
            stage.require_moved()  # where it was resumed at its end
            done += stage.steps
    _require_finite(network, task, run.path / WEIGHTS)
    checkpoint.save_weights(run.path / WEIGHTS, network.state_dict())


def _require_finite(network: nn.Module, task: Task, path: Path) -> None:
    """Raise `DivergedError` for a network whose output on the task's example is not finite: its weights are no use."""
    example = placed(task.example(), next(network.parameters()).device)
    with in_mode(network, "eval"), torch.no_grad():
        require_finite(network(*example), f"{path} was not written")


def build_network(config: Config, genotype: Genotype) -> nn.Module:
    """The network that a retraining of `genotype` trains, at its initial weights."""
    network = find_space(genotype.space).derived(config.retrained(genotype), seed=config.seed)
    checkpoint.load_parts(network, config.initial, lambda: config.parts(genotype.options))
    return network


def load_network(run: str | Path) -> nn.Module:
    """The retrained network in a run folder, in eval mode; raises `ConfigError` where there is none, or none yet, and
    `InvalidFileError` where its files are damaged or do not fit."""
    path = Path(run) / WEIGHTS
    if not path.is_file():
        raise ConfigError(
            f"{run}: no retrained network (it has no {WEIGHTS}): retrain a genotype, or finish it by --resume"
        )
    genotype = Genotype.load(Path(run) / GENOTYPE)
    network = find_space(genotype.space).derived(genotype)
    checkpoint.load_into(network, checkpoint.load_weights(path), path)
    return network.eval()


def evaluate(network: nn.Module, task: Task, split: str = TEST) -> dict[str, float]:
    """The task's metrics of a network on a split, in eval mode and without gradients."""
    with channels_last(network), in_mode(network, "eval"), torch.no_grad():
        return of_split(task.evaluate, split)(network)


def previews(network: nn.Module, task: Task) -> list[Preview]:
    """What the task shows of a network, in eval mode and without gradients; nothing where it offers none."""
    offered: Callable[[nn.Module], Iterable[Preview]] = getattr(task, "previews", lambda network: ())
    with channels_last(network), in_mode(network, "eval"), torch.no_grad():
        return list(offered(network))


def _check(run: Run, genotype: Genotype, retraining: bool) -> None:
    if not retraining:
        raise ConfigError(f"{run.path}: not the folder of a retraining, but of a search; use another folder")
    begun = Genotype.load(run.path / GENOTYPE)
    if (begun.options, begun.choices) != (genotype.options, genotype.choices):
        raise ConfigError(f"{run.path}: was started with another genotype; resume it with that, or use another folder")
