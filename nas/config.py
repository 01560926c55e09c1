"""The configuration of a run: one YAML file, and `key.path=value` overrides; `key.path=null` takes a key out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.files import convert, dump_yaml, listed, parse_yaml, read_text
from nas.genotype import Genotype
from nas.levels import Level, Precision
from nas.plugins import those_that_work
from nas.space import find_space, spaces
from nas.task import Task, find_task

Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0)]
"""What torch's and NumPy's generators take, together with the limit of 64 bits that files have."""

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""The types of devices that networks are trained and used on."""


class SearchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to search."""

    steps: Count
    levels: dict[str, Level]
    """By name, from the lowest to the highest."""
    relaxation: str | dict[str, Any] = "softmax"
    """How logits become mixing weights: a name, or a mapping of `name` and arguments."""
    evaluation: Literal["plain", "planned"] = "planned"
    """How cells are evaluated: `planned` is several times faster, with the same results up to rounding."""
    memory: Literal["keep", "checkpoint"] = "keep"
    """Whether the inside of cells is kept for the backward pass, or computed again then: less memory, more time."""
    precision: Precision = "float32"
    """In what losses are evaluated, where torch's autocast allows it: `bfloat16` is for graphics processors."""
    epochs: Count = 10
    """How often the run records the genotype it would derive and the collapse indicators, and saves a checkpoint."""
    at_most: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """The most of a candidate that each cell of a derived genotype has, by `CANDIDATE` or `CELL/CANDIDATE`."""
    validation_batches: Annotated[int, msgspec.Meta(ge=0)] = 4
    """Batches on which the supernet is scored at each epoch, of the split of the arch parameters' level."""
    hessian_products: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Hessian-vector products spent at each epoch on the sharpness of the validation loss (see `nas.observe`)."""
    latency: dict[str, dict[str, Annotated[float, msgspec.Meta(ge=0)]]] = {}
    """Milliseconds by label and candidate, for `expected_latency`; `nas latency` measures them. In a configuration the
    path of a file that holds them will do."""
    check: Literal["error", "warn"] = "error"
    """Whether a search stops, before its first step, where derived networks of narrow widths do not compute what the
    supernet does (see `nas.inheritance`), or warns."""

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with this step, counted from 1."""
        return _ends_epoch(step, self.steps, self.epochs)


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stage of retraining: one level for a number of steps."""

    steps: Count
    level: Level


class RetrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to train a derived network: stages by name, in order."""

    stages: dict[str, Stage]
    precision: Precision = "float32"
    """As that of the search."""
    epochs: Count = 10
    """How often a checkpoint is saved, over all stages."""
    options: dict[str, Any] = {}
    """Options of the space in which the retrained network differs from its genotype: more channels, more cells."""
    task: dict[str, Any] = {}
    """Fields of the task in which retraining, and what follows it, differs from the search: another batch size."""

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return sum(stage.steps for stage in self.stages.values())

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with this step over all stages, counted from 1."""
        return _ends_epoch(step, self.steps, self.epochs)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole configuration. `task` holds the task's `name` and the fields of that task's own struct."""

    space: str
    task: dict[str, Any]
    search: SearchConfig
    retrain: RetrainConfig
    options: dict[str, Any] = {}
    seed: Seed = 0
    initial: dict[str, str] = {}
    """Weights to start from (safetensors files), by the path of a part of the network (`alignment.ofm.flow`); `.`
    is all of it. A derived network leaves out those of parts that it lacks, but other networks of its space have."""
    start: str = ""
    """Folder of a search from whose last state a search starts: operation weights, arch parameters, and the states of
    optimizers that are the same. Schedules start from 0."""
    device: str = "cpu"
    """Where networks live: `cpu`, `cuda`, `cuda:1`, `mps`."""
    tune: dict[str, str] = {}
    """What `nas tune` varies: by key, a distribution such as `log(1e-4, 1e-1)`. No run depends on it."""

    def dump(self) -> str:
        """The YAML text of what a run depends on, complete with all defaults of the structs."""
        return dump_yaml({name: value for name, value in msgspec.to_builtins(self).items() if name != "tune"})

    def torch_device(self) -> torch.device:
        """The device; raises `ConfigError` where this machine does not have it."""
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
        """The genotype of the network that is retrained: with the choices of `genotype`, and `retrain.options`."""
        return msgspec.structs.replace(genotype, options={**genotype.options, **self.retrain.options})

    def parts(self, options: Mapping[str, Any]) -> set[str]:
        """The paths of the parts of all networks of the space, with the options of the search, and with those given as
        the retraining changes them."""
        space = find_space(self.space)
        networks = [space.describe(**each).network for each in (self.options, {**options, **self.retrain.options})]
        return {path for network in networks for path, _ in network.named_modules()}

    def build_task(self, *, retraining: bool = False) -> Task:
        """The task with its configuration and the run's seed; raises `InvalidFileError` for a field it has not.

        With `retraining` the task of a retraining, and of the use of its network: with the fields of `retrain.task`.
        """
        cls = self.task_class()
        own = self.retrain.task if retraining else {}
        fields = {key: value for key, value in {**self.task, **own}.items() if key != "name"}
        built: Task = cls(convert(fields, cls.Config, "task"), seed=self.seed)
        return built

    def task_class(self) -> Any:
        """The class of the task; raises `UnknownNameError`."""
        if "name" not in self.task:
            raise ConfigError("task: missing the field 'name'")
        return find_task(str(self.task["name"]))


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration, a file or the name of one that a search space ships, with `key.path=value` overrides.

    Raises `InvalidFileError` (file, field, found, expected), `ConfigError` for an override that fits nowhere.
    """
    path = find_config(str(source))
    data = parse_yaml(read_text(path), str(path))
    if not isinstance(data, dict):
        raise InvalidFileError(f"{path}: expected a mapping with 'space', 'task', 'search' and 'retrain'")
    return parse_config(data, overrides, str(path))


def parse_config(data: dict[str, Any], overrides: Sequence[str] = (), where: str = "configuration") -> Config:
    """The configuration in plain data, with overrides applied."""
    data = _copy(data)
    for override in overrides:
        _override(data, override)
    _read_latency(data)
    config = convert(data, Config, where + ("".join(f" {o}" for o in overrides)))
    space = find_space(config.space)
    space.options(**{**config.options, **config.retrain.options})
    # In full and in plain data: a run does not depend on a file of operations, nor on what defaults become later.
    return msgspec.structs.replace(config, options=space.options(**config.options))


def find_config(source: str) -> Path:
    """The path of a configuration: `source` itself where it is a file, else that of a shipped one by this name."""
    path = Path(source)
    if path.is_file():
        return path
    known = shipped_configs()
    if source not in known:
        if path.suffix in (".yaml", ".yml"):
            raise InvalidFileError(f"{path}: no such file; shipped configurations: {', '.join(known) or 'none'}")
        raise UnknownNameError("configuration", source, known, "or give the path of a YAML file")
    return known[source]


def shipped_configs() -> dict[str, Path]:
    """The configurations in the folder `configs` beside the module of each known search space, by name; warns of
    spaces that are broken."""
    found: dict[str, Path] = {}
    for _, space in those_that_work(spaces(), find_space):
        folder = Path(inspect.getfile(space.function)).parent / "configs"
        found.update(
            {path.stem: path for path in (listed(folder) if folder.is_dir() else ()) if path.suffix == ".yaml"}
        )
    return found


def _ends_epoch(step: int, steps: int, epochs: int) -> bool:
    """Whether `step` of `steps` is the last one of an epoch: of `epochs`, as equal as can be, none of them empty."""
    return step * epochs // steps > (step - 1) * epochs // steps


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{override}' is not an override: expected key.path=value, such as search.steps=100")
    *parents, last = key.split(".")
    place: Any = data
    for i, name in enumerate(parents):
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ConfigError(f"'{override}': '{'.'.join(parents[: i + 1])}' is not a mapping in the configuration")
    value = parse_yaml(text, override)
    if value is None:
        place.pop(last, None)
    else:
        place[last] = value


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
