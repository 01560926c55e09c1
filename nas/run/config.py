"""The configuration of a run: one YAML file and `key.path=value` overrides; `key.path=null` removes a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch

from nas.errors import ConfigError
from nas.files import convert, dump_yaml, parse_yaml, read_text
from nas.genotype.file import Genotype
from nas.multilevel.level import Level, Precision
from nas.registry import Count, NonNegative, Positive, Rate, Share
from nas.run.config_files import find_config, read_config, with_base
from nas.run.modules import naming_modules
from nas.run.task import PYTHON, TASKS, Task, require_ranked
from nas.space.definition import find_space

Seed = Annotated[int, msgspec.Meta(ge=0)]
"""A seed that torch and NumPy take; files limit it to 64 bits."""

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""The types of devices that networks are trained and used on."""


PROPOSING = ("searcher", "score", "evaluations")
"""The fields of `search` without effect on a search by the gradient."""


class SearchStage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stage of a search: a supernet of its own, over the candidates that the stages before kept."""

    epochs: Count
    """How many of the epochs of the search."""
    keep: Count | None = None
    """How many candidates each decision keeps at the end: those with the largest mixing weights. By default all."""
    options: dict[str, Any] = {}
    """Options of the space that differ in this stage, such as more cells."""
    wrappers: tuple[str | dict[str, Any], ...] | None = None
    """In place of those of the search."""
    warmup: dict[str, Rate] = {}
    """By level, the share of this stage after which it starts, in place of its own `warmup`."""
    continues: bool = False
    """Whether operation weights, arch parameters, optimizers and schedules are those of the stage before. Otherwise
    only its candidates are, and the stage starts as a search of its own."""


class SearchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to search."""

    steps: Count
    levels: dict[str, Level]
    """By name, from the lowest to the highest."""
    relaxation: str | dict[str, Any] = "softmax"
    """How logits become mixing weights: a name, or a mapping of `name` and arguments."""
    wrappers: tuple[str | dict[str, Any], ...] = ()
    """What changes mixed operations or mixing weights, in order: names, or mappings of `name` and arguments."""
    evaluation: Literal["plain", "planned"] = "planned"
    """How cells are evaluated: `planned` is several times faster, with the same results up to rounding."""
    memory: Literal["keep", "checkpoint"] = "keep"
    """Whether the inside of cells is kept for the backward pass (`keep`) or recomputed: less memory, more time."""
    precision: Precision = "float32"
    """The precision of losses, as far as torch's autocast allows it; `bfloat16` is for graphics processors."""
    epochs: Count = 10
    """Number of epochs: how often the run derives a genotype, calls observers and saves a checkpoint."""
    checkpoint_minutes: Positive = 5.0
    """The longest time between two checkpoints, besides those at the end of epochs; a resumed run may have another."""
    derivation: str | dict[str, Any] = "strongest"
    """How mixing weights become a genotype: the name of a policy, or a mapping of `name` and arguments."""
    at_most: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """The largest number of a candidate in each cell of a derived genotype, by `CANDIDATE` or `CELL/CANDIDATE`."""
    validation_batches: Annotated[int, msgspec.Meta(ge=0)] = 4
    """Number of batches that score the supernet at each epoch."""
    validation_split: str | None = None
    """Their split; by default that of the level that owns the arch parameters."""
    hessian_products: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Hessian-vector products spent at each epoch on the sharpness of the validation loss (see `nas.run.collapse`)."""
    latency: dict[str, dict[str, NonNegative]] = {}
    """Milliseconds by label and candidate, for `expected_latency`; `nas latency` measures them. In a file also the path
    of a file with them."""
    check: Literal["error", "warn"] = "error"
    """Whether a search fails before its first step, or warns, if derived networks of narrow widths do not compute what
    the supernet does (see `nas.run.inheritance`)."""
    stages: dict[str, SearchStage] = {}
    """By name, the stages that follow one another (see `nas.run.stages`); by default the search is one."""
    stopping: str | dict[str, Any] | None = None
    """When the search ends before its last step: the name of a stopping rule, or a mapping of `name` and arguments."""
    observers: tuple[str | dict[str, Any], ...] = ()
    """What is called at each epoch: names, or mappings of `name` and arguments (see `nas.run.observer`)."""
    searcher: str | dict[str, Any] | None = None
    """Proposes genotypes, in place of a search by the gradient: a name, or a mapping of `name` and arguments."""
    score: str | dict[str, Any] | None = None
    """How the searcher's proposals are judged: a name, or a mapping of `name` and arguments; by default `retraining`,
    or what the searcher states."""
    evaluations: Count = 100
    """Number of proposals that are scored."""


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stage of retraining: one level for a number of steps."""

    steps: Count
    level: Level


class ValidationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a network is scored while it trains. Its data must not be trained on."""

    split: str = "val"
    """Name of one of the task's splits. Never `test`: a network that test data choose has no unbiased test score."""
    every: Count | None = None
    """Steps between two scores, in place of `retrain.epochs`."""
    batches: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of batches of the split that are scored, always the same ones; 0 for the whole split, as `nas evaluate`
    scores it, which may take long."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the result: those with the best score, or the last ones."""


class RetrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to train a derived network: stages by name, in order."""

    stages: dict[str, Stage]
    precision: Precision = "float32"
    """As that of the search."""
    epochs: Count = 10
    """How often observers are called and a checkpoint is saved, over all stages."""
    checkpoint_minutes: Positive = 5.0
    """As that of the search."""
    validation: ValidationConfig | None = None
    """How the network is scored at each epoch; by default it is not."""
    ema: Share | None = None
    """Decay of the exponential moving average of the weights, such as 0.999; each stage ends with the average."""
    options: dict[str, Any] = {}
    """Options of the space that differ from the genotype, such as more channels."""
    task: dict[str, Any] = {}
    """Fields of the task that differ from the search, such as the batch size; also for evaluation and prediction."""

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return sum(stage.steps for stage in self.stages.values())


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole configuration of a search and a retraining; `nas.load_config` makes one.

    Example:
        >>> config = nas.load_config("digits", {"seed": 1})
        >>> config.space, config.task["name"], list(config.search.levels)
        ('digits', 'classification', ['lower', 'upper'])
    """

    space: str
    task: dict[str, Any]
    """The `name` of the task, and the fields of its `Config`."""
    search_section: SearchConfig | None = msgspec.field(default=None, name="search")
    """How to search; a configuration that only retrains has none."""
    retrain_section: RetrainConfig | None = msgspec.field(default=None, name="retrain")
    """How to retrain; a configuration that only searches has none."""
    options: dict[str, Any] = {}
    seed: Seed = 0
    initial: dict[str, str] = {}
    """Weights to start from (names of shipped weights, or safetensors files), by the path of a part of the network
    (`alignment.ofm.flow`); `.` is the whole network. A part that only other networks of the space have is skipped."""
    start: str = ""
    """Folder of a search; a new search starts from its last state: operation weights, arch parameters, and the states
    of equal optimizers. Schedules start from 0."""
    device: str = "cpu"
    """Where networks live: `cpu`, `cuda`, `cuda:1`, `mps`."""
    batch_norm: Literal["local", "synchronized"] = "local"
    """Whose samples a batch norm in training uses if several ranks train a network: those of its rank, or of all."""
    prefetch: bool = True
    """Whether a thread makes the batches of the next step, if the task allows it. No result depends on it."""
    tune: dict[str, str] = {}
    """What `nas tune` varies: by key, a distribution such as `log(1e-4, 1e-1)`. No run depends on it."""

    @property
    def search(self) -> SearchConfig:
        """How to search; raises `ConfigError` if the section is missing."""
        if self.search_section is None:
            raise _missing("search", "a search", "search: {steps: 500, levels: {lower: {...}, upper: {...}}}")
        return self.search_section

    @property
    def retrain(self) -> RetrainConfig:
        """How to retrain; raises `ConfigError` if the section is missing."""
        if self.retrain_section is None:
            raise _missing("retrain", "a retraining", "retrain: {stages: {all: {steps: 1000, level: {...}}}}")
        return self.retrain_section

    def dump(self) -> str:
        """Return everything that a run depends on as YAML, with all defaults."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        absent = [name for name in ("search", "retrain") if plain[name] is None]
        if self.batch_norm == "local":  # as in runs of versions without the field
            absent.append("batch_norm")
        if self.search_section is not None:
            how = self.search_section
            unused = {*(PROPOSING if how.searcher is None else ()), *(() if how.stages else ("stages",))}
            plain["search"] = {key: value for key, value in plain["search"].items() if key not in unused}
        return dump_yaml({name: value for name, value in plain.items() if name not in ("tune", "prefetch", *absent)})

    def torch_device(self) -> torch.device:
        """Return the device; raises `ConfigError` if this machine does not have it."""
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            if self.device.partition(":")[0] not in DEVICES:
                known = ", ".join(DEVICES)
                raise ConfigError(
                    f"device must be {known}, or one of several such as cuda:1, got '{self.device}'"
                ) from error
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise ConfigError(
                f"device '{self.device}' is not available here: {reason}; device=cpu always is"
            ) from error

    def retrained(self, genotype: Genotype) -> Genotype:
        """Return the genotype of the retrained network: the choices of `genotype` with `retrain.options`."""
        return msgspec.structs.replace(genotype, options={**genotype.options, **self._retrain_options})

    @property
    def _retrain_options(self) -> dict[str, Any]:
        return {} if self.retrain_section is None else self.retrain_section.options

    def parts(self, options: Mapping[str, Any]) -> set[str]:
        """Return the paths of the parts of all networks of the space, with the options of the search and with those of
        the retraining."""
        space = find_space(self.space)
        networks = [space.describe(**each).network for each in (self.options, {**options, **self._retrain_options})]
        return {path for network in networks for path, _ in network.named_modules()}

    def build_task(self, *, retraining: bool = False) -> Task:
        """The task with its configuration and the run's seed; raises `InvalidFileError` for a field it has not.

        With `retraining` the task of a retraining, and of the use of its network: with the fields of `retrain.task`.
        """
        if "name" not in self.task:
            raise ConfigError("task: missing the field 'name'")
        name = str(self.task["name"])
        if name == PYTHON:
            raise ConfigError(
                f"task: this run was started in Python with a task of its own ({self.task.get('class', 'unknown')}),"
                " which no file holds. Give this task again: nas.search(config, task=..., out=..., resume=True), or"
                " nas.retrain and nas.evaluate in the same way"
            )
        cls = TASKS.find(name)
        own = self.retrain_section.task if retraining and self.retrain_section is not None else {}
        fields = {key: value for key, value in {**self.task, **own}.items() if key != "name"}
        built: Task = cls(convert(fields, cls.Config, "task"), seed=self.seed)
        require_ranked(built, f"task '{name}'")
        return built


def _missing(section: str, needs: str, example: str) -> ConfigError:
    return ConfigError(
        f"{section}: {needs} needs this section, got a configuration without it. Add one, such as `{example}`;"
        " `nas config demo` prints a whole configuration"
    )


Overrides = Sequence[str] | Mapping[str, Any]
"""Values by dotted key: as texts `key.path=value` with the value in YAML, or as a mapping. None takes a key out."""


def load_config(source: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> Config:
    """Load a configuration.

    Args:
        source: the path of a YAML file, the name of a configuration that a search space ships, or plain data.
        overrides: changes by dotted key, such as `{"search.steps": 200}`; None takes a key out. The command line gives
            texts instead (`search.steps=200`).

    Raises:
        InvalidFileError: a field is unknown, missing, or of the wrong type or range.
        UnknownNameError: no file and no shipped configuration has this name.
        ConfigError: an override does not fit.

    Example:
        >>> config = nas.load_config("digits", {"search.steps": 200})
        >>> config.search.steps
        200
    """
    if isinstance(source, Mapping):
        return parse_config(with_base(source, "configuration"), overrides)
    path = find_config(str(source))
    data = read_config(path)
    with naming_modules(path.parent):
        return parse_config(data, overrides, str(path))


def parse_config(data: Mapping[str, Any], overrides: Overrides = (), where: str = "configuration") -> Config:
    """Return the configuration in plain data, with overrides applied; raises what `load_config` does."""
    changed: dict[str, Any] = _copy(data)
    items = overrides.items() if isinstance(overrides, Mapping) else map(_parsed, overrides)
    for key, value in items:
        _override(changed, key, value)
        where += f" {key}={value}"
    _read_latency(changed)
    config = convert(changed, Config, where)
    space = find_space(config.space)
    space.options(**{**config.options, **({} if config.retrain_section is None else config.retrain.options)})
    # In full and in plain data: a run does not depend on a file of operations, nor on what defaults become later.
    return msgspec.structs.replace(config, options=space.options(**config.options))


def _parsed(override: str) -> tuple[str, Any]:
    """The key and the value of a text `key.path=value`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        hint = ". `nas retrain` takes a configuration by --config FILE" if override.endswith((".yaml", ".yml")) else ""
        raise ConfigError(f"an override must be key.path=value, such as search.steps=100, got '{override}'{hint}")
    return key, parse_yaml(text, override)


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place: Any = data
    for i, name in enumerate(parents):
        if value is None and place.get(name) is None:
            return  # nothing to take out
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            found = ".".join(parents[: i + 1])
            raise ConfigError(f"'{key}': '{found}' must be a mapping in the configuration, got {place!r}")
    if value is None:
        place.pop(last, None)
    else:
        place[last] = _copy(value)


def _read_latency(data: dict[str, Any]) -> None:
    """Put the table of latencies in the place of the path of its file, as `nas latency` writes it."""
    search = data.get("search")
    if isinstance(search, dict) and isinstance(path := search.get("latency"), str):
        table = parse_yaml(read_text(path), path)
        search["latency"] = table.get("latency", table) if isinstance(table, dict) else table


def _copy(data: Any) -> Any:
    """A copy without shared parts, so that an override changes one place (`copy.deepcopy` would keep them shared)."""
    if isinstance(data, Mapping):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(item) for item in data] if isinstance(data, list) else data
