"""Retraining: train the derived network of a genotype file, stage by stage."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.distributed.ranks import of_first
from nas.errors import ConfigError, InvalidFileError
from nas.files import read_bytes
from nas.genotype.file import Genotype
from nas.kernels.device import placed
from nas.kernels.evaluation import in_mode
from nas.kernels.finite import require_finite
from nas.kernels.memory_format import channels_last
from nas.multilevel.multilevel import Multilevel
from nas.run import checkpoint
from nas.run.card import CARD, Card, read_card
from nas.run.config import Config, ValidationConfig
from nas.run.folder import BEST_WEIGHTS, GENOTYPE, Run
from nas.run.loop import Loop
from nas.run.modules import naming_modules
from nas.run.observer import Observer
from nas.run.task import TEST, Preview, Task
from nas.run.validation import Score, WeightValidation, mean_metrics
from nas.space.definition import find_space

WEIGHTS = "weights.safetensors"


def retrain(
    config: Config,
    genotype: Genotype,
    run: Run,
    observers: Sequence[Observer] = (),
    *,
    initial: nn.Module | None = None,
    scored: str = TEST,
    task: Task | None = None,
    minutes: float | None = None,
) -> nn.Module:
    """Train the network that `genotype` derives, with `retrain.options`, stage by stage; resumes from the last
    checkpoint of the run, if it has one.

    A stage changes the parameters of its level alone; with `mode: eval` no buffers either. The run folder receives
    metrics, checkpoints, the genotype, and `weights.safetensors`: with `retrain.validation` the best weights by its
    score, with `retrain.ema` averaged ones.

    Args:
        config: of the retraining.
        genotype: of the network.
        run: the folder.
        observers: called after each step and epoch.
        initial: the network to train, such as one that inherits a supernet's weights; by default the network with the
            initial weights of the configured seed.
        scored: the split that is to be scored afterwards; the task checks it before the first step.
        task: in place of the configured one.
        minutes: after which this process stops training at the end of a step, and writes the weights of then.

    Raises:
        ConfigError: the configuration does not fit; nothing is recorded then.
        DivergedError: the losses stopped being finite, or no step of a stage was taken, and the last state is saved; or
            the output of the network on the task's example is not finite, and the weights are not written.
        KeyboardInterrupt: the run was asked to stop; the step is saved.
    """
    if config.space != genotype.space:
        raise ConfigError(f"the configuration is for space '{config.space}', the genotype of '{genotype.space}'")
    genotype = config.retrained(genotype)
    task = task or config.build_task(retraining=True)
    task.check(scored)
    network = (build_network(config, genotype) if initial is None else initial).to(config.torch_device())
    with channels_last(network):
        _Retraining(config, genotype, run, observers, network, task, minutes).finish()
        _require_finite(network, task, run.path / WEIGHTS)
        checkpoint.save_weights(run.path / WEIGHTS, network.state_dict())
    return network


class _Retraining(Loop):
    kind = "retrain"

    def __init__(
        self,
        config: Config,
        genotype: Genotype,
        run: Run,
        observers: Sequence[Observer],
        network: nn.Module,
        task: Task,
        minutes: float | None,
    ) -> None:
        self.genotype, self._how = genotype, config.retrain.validation
        self._validation: WeightValidation | None = None
        if self._how is not None:
            check_validation(self._how, [stage.level.split for stage in config.retrain.stages.values()], task)
            self._validation = WeightValidation(validation_score(self._how, task), task)
        self._network = network
        self._stages = list(build_stages(config, network, task))
        super().__init__(
            run,
            [stage.steps for stage in self._stages],
            epochs=config.retrain.epochs,
            seed=config.seed,
            observers=observers if self._validation is None else [self._validation, *observers],
            minutes=minutes,
            checkpoint_minutes=config.retrain.checkpoint_minutes,
            decay=config.retrain.ema,
        )

    @property
    def network(self) -> nn.Module:
        return self._network

    @property
    def levels(self) -> Multilevel:
        return self._stages[self.stage]

    def prepare(self) -> None:
        self.run.save_genotype(self.genotype)

    def check_resumed(self, step: int) -> None:
        path = self.run.path / GENOTYPE
        begun = Genotype.parse(of_first(lambda: Genotype.load(path).dump()), str(path))
        if (begun.options, begun.choices) != (self.genotype.options, self.genotype.choices):
            raise ConfigError(
                f"{self.run.path}: was started with another genotype; resume it with that, or use another folder"
            )

    def ends_epoch(self, step: int) -> bool:
        if self._how is None or self._how.every is None:
            return super().ends_epoch(step)
        return step % self._how.every == 0 or step == self.steps

    def end_epoch(self, step: int) -> Genotype:
        return self.genotype

    def finish(self) -> None:
        """Take the steps that are left, or those for which there is time, and give the network its final weights."""
        if self.go() < self.steps and self._average is not None:
            self._average.copy_to_network()
        if self._validation is not None and self._validation.weights and self._how and self._how.keep == "best":
            self.network.load_state_dict(self._validation.weights)


def build_stages(
    config: Config, network: nn.Module, task: Task, batch: Callable[[str, int], Any] | None = None
) -> Iterator[Multilevel]:
    """The levels of each stage of a retraining over its network, in order.

    Args:
        config: of the retraining.
        network: to train.
        task: has the losses and the data.
        batch: in place of the task's own batches.

    Raises:
        ConfigError: there is no stage, or its level cannot work.
    """
    how, before = config.retrain, 0
    if not how.stages:
        raise ConfigError("retrain.stages is empty: nothing would be trained")
    for name, stage in how.stages.items():
        yield Multilevel(
            network,
            {name: stage.level},
            task.losses,
            batch or task.batch,
            stage.steps,
            precision=how.precision,
            span=(before / how.steps, (before + stage.steps) / how.steps),
            synchronized=config.batch_norm == "synchronized",
            threaded=batch is None and config.prefetch and task.threaded,
        )
        before += stage.steps


def check_validation(how: ValidationConfig, trained: Iterable[str], task: Task) -> None:
    """Raise `ConfigError` if a split cannot choose weights: test data, data that are trained on, or no measure."""
    where = "retrain.validation.split"
    if how.split == TEST:
        raise ConfigError(f"{where} must not be '{TEST}': test data choose nothing. Use a split of the training data")
    for split in dict.fromkeys(trained):
        shared = sorted(map(str, set(task.members(split)).intersection(task.members(how.split))))
        if shared or split == how.split:
            named = f", with {len(shared)} in both such as '{shared[0]}'" if shared else ""
            raise ConfigError(
                f"{where} must share no data with the split '{split}', on which a stage trains, got '{how.split}'"
                f"{named}. Train on another split, such as retrain.stages.NAME.level.split=train"
            )
    if how.batches and not task.has("measure"):
        raise ConfigError(
            f"retrain.validation.batches needs a task with a method measure, got {type(task).__qualname__}. Omit it:"
            " then the whole split is scored"
        )
    task.check(how.split)


def validation_score(how: ValidationConfig, task: Task) -> Score:
    """The metrics of a network on the validation data."""

    def score(network: nn.Module) -> dict[str, float]:
        if not how.batches:
            return evaluate(network, task, how.split)
        device = next(network.parameters()).device
        batches = (placed(task.batch(how.split, index), device) for index in range(how.batches))
        return mean_metrics(network, task.measure, batches)

    return score


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


def weights_of(run: str | Path, *, ended: bool = False) -> Path:
    """The weights of the retrained network in a run folder.

    Args:
        run: the folder.
        ended: whether the retraining must have ended. Otherwise one with `retrain.validation` has the best weights so
            far, with a warning.

    Raises:
        ConfigError: there are no weights.
    """
    if (path := Path(run) / WEIGHTS).is_file():
        return path
    if not ended and (path := Path(run) / BEST_WEIGHTS).is_file():
        warnings.warn(
            f"{run}: the retraining has not ended; its network has the weights of the best epoch so far",
            stacklevel=2,
        )
        return path
    raise ConfigError(
        f"{run}: no retrained network (it has no {WEIGHTS}): retrain a genotype, or finish it by --resume"
    )


def load_network(run: str | Path) -> nn.Module:
    """Load the retrained network in the folder of a run or a model, in eval mode; see `weights_of`.

    Raises:
        ConfigError: the folder has no network, or none yet.
        InvalidFileError: a file is damaged, does not fit, or was written by a later version of the package.
    """
    path = weights_of(run)
    if (Path(run) / CARD).is_file():
        _require_intact(path, read_card(run))
    genotype = Genotype.load(Path(run) / GENOTYPE)
    with naming_modules(run):
        network = find_space(genotype.space).derived(genotype)
    checkpoint.load_into(network, checkpoint.load_weights(path), path)
    return network.eval()


def _require_intact(path: Path, card: Card) -> None:
    """Raise `InvalidFileError` unless the weights of a model are those that its card was written for."""
    found = hashlib.sha256(read_bytes(path)).hexdigest()
    if found != card.sha256:
        raise InvalidFileError(
            f"{path}: damaged: its SHA-256 must be {card.sha256[:12]}... as {CARD} states, got {found[:12]}..."
            " Install or copy the model again"
        )


def evaluate(network: nn.Module, task: Task, split: str = TEST) -> dict[str, float]:
    """The task's metrics of a network on a split, in eval mode and without gradients."""
    with channels_last(network), in_mode(network, "eval"), torch.no_grad():
        return task.evaluate(network, split)


def previews(network: nn.Module, task: Task) -> list[Preview]:
    """What the task shows of a network, in eval mode and without gradients; nothing where it offers none."""
    with channels_last(network), in_mode(network, "eval"), torch.no_grad():
        return list(task.previews(network))
