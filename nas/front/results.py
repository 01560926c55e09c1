"""Results of runs, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from nas.errors import ConfigError, NASError
from nas.export.exporting import Exported, Format, export_run
from nas.front.targets import config_of, existing
from nas.genotype.file import Genotype
from nas.report.page import Report, write_report
from nas.run.config import Config
from nas.run.folder import BEST, GENOTYPE, Record, read_records
from nas.run.models import model_folder
from nas.run.retraining import WEIGHTS, load_network, previews
from nas.run.searching import derive_from, inherit_from
from nas.run.task import Preview, Task


class Scores(dict[str, float]):
    """Metrics of a network by name.

    Args:
        values: the metrics.
        statement: how they were taken, in words.
        parts: the metrics of each part of the data, by its name.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        statement: str = "",
        parts: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__(values)
        self.statement, self.parts = statement, dict(parts or {})


class _Result:
    """What the folder of a run holds.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: Config = config_of(self.path)

    @property
    def records(self) -> list[Record]:
        """The records of the run (`metrics.jsonl`): mappings of `kind`, mostly `step`, and values."""
        return read_records(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


class SearchResult(_Result):
    """The result of a search, read from its run folder: what `nas.search` returns.

    `SearchResult(folder)` reads it again at any time, also while the search runs.

    Args:
        path: the folder.

    Raises:
        MissingFileError: no such folder.
        ConfigError: the folder holds no run.

    Example:
        >>> config = nas.load_config("digits", {"search.steps": 2, "search.epochs": 1})
        >>> found = nas.search(config, out="runs/search")
        >>> found.genotype == nas.SearchResult("runs/search").genotype
        True
        >>> network = found.network()  # with the weights that the search has trained
    """

    @property
    def genotype(self) -> Genotype:
        """The genotype that the search derived at its end; raises `ConfigError` before."""
        if not (self.path / GENOTYPE).is_file():
            raise ConfigError(f"{self.path}: the search has not ended; resume it, or use derive()")
        return Genotype.load(self.path / GENOTYPE)

    @property
    def best(self) -> Genotype | None:
        """The genotype of the epoch with the best validation score of the supernet; None if none was scored."""
        return Genotype.load(self.path / BEST) if (self.path / BEST).is_file() else None

    def derive(
        self, at_most: Mapping[str, int] | None = None, *, derivation: str | Mapping[str, Any] | None = None
    ) -> Genotype:
        """Derive a genotype at the last checkpoint, also of a search that has not ended.

        Args:
            at_most: limits on candidates, by `CANDIDATE` for each cell or `CELL/CANDIDATE` for one, in place of those
                of the configuration.
            derivation: name of the policy, or a mapping of its `name` and its arguments, such as
                `{"name": "budgeted", "params": 50_000}`, in place of that of the configuration.

        Raises:
            ConfigError: no checkpoint exists yet, no genotype keeps the limits, or the policy cannot work with the
                search.
            UnknownNameError: no policy has this name.
        """
        return derive_from(self.path, at_most, derivation)

    def network(self, genotype: Genotype | None = None) -> nn.Module:
        """Build a derived network with the operation weights of the search at its last checkpoint.

        Args:
            genotype: by default the one the search derived.
        """
        return inherit_from(self.path, self.genotype if genotype is None else genotype)

    def report(self) -> Report:
        """Write the report of the search (`report.html` in its folder); notebooks show what this returns."""
        return write_report(self.path)

    def _repr_html_(self) -> str | None:
        return self.genotype._repr_html_() if (self.path / GENOTYPE).is_file() else None


class RetrainResult(_Result):
    """The result of a retraining, read from its run folder: what `nas.retrain` returns.

    `RetrainResult(folder)` reads it again at any time.

    Args:
        path: the folder.
        task: the task, if the retraining had one that no configuration names.

    Raises:
        MissingFileError: no such folder.
        ConfigError: the folder holds no run.

    Example:
        >>> small = {"retrain.stages.all.steps": 2, "retrain.epochs": 1}
        >>> result = nas.retrain(nas.find_space("digits").sample(torch.Generator()), nas.load_config("digits", small),
        ...                      out="runs/network")
        >>> sorted(result.scores)
        ['accuracy', 'loss']
        >>> result.export("digits.py").files[0].name
        'digits.py'
    """

    def __init__(self, path: str | Path, task: Task | None = None) -> None:
        super().__init__(path)
        self._task = task

    @property
    def genotype(self) -> Genotype:
        """The genotype of the network, with the options that the retraining changed."""
        return Genotype.load(self.path / GENOTYPE)

    @cached_property
    def network(self) -> nn.Module:
        """The trained network, in eval mode, as `nas.load` returns it."""
        return load(self.path)

    @property
    def scores(self) -> Scores:
        """The metrics of the last evaluation; empty before."""
        found = [record for record in self.records if record["kind"] == "evaluate"]
        last = found[-1] if found else {}
        numbers = {k: v for k, v in last.items() if k != "step" and isinstance(v, int | float)}
        return Scores(numbers, last.get("statement", ""), last.get("parts"))

    def report(self) -> Report:
        """Write the report of the retraining (`report.html` in its folder); notebooks show what this returns."""
        return write_report(self.path, previews=previews_of(self.path, self._task)[0])

    def export(self, path: str | Path | None = None, format: Format | None = None) -> Exported:
        """Write the network for use without this package, and check that it computes the same.

        Args:
            path: the file; by default in the folder of the run.
            format: `source` (a Python file and its weights), `pt2`, `onnx` or `safetensors`; by default that of the
                suffix of `path`, else `source`.

        Returns:
            The `files` written, and `facts` about them, in words.

        Raises:
            ExportError: the network cannot be written in this format.
        """
        return export_run(self.path, format, None if path is None else Path(path), task=self._task)


def load(run: str | Path) -> nn.Module:
    """Load a trained network, in eval mode.

    If a retraining with `retrain.validation` has not ended, this is the network of its best epoch so far, with a
    warning.

    Args:
        run: the folder of a retraining or of a model, or the name of a shipped model (`nas models` lists them).

    Raises:
        MissingFileError: no such folder, and no model of this name.
        ConfigError: the folder holds no retraining, or one that has no weights yet.
        InvalidFileError: a file is damaged, or a later version of the package wrote it.

    Example:
        >>> config = nas.load_config("digits", {"retrain.stages.all.steps": 2, "retrain.epochs": 1})
        >>> genotype = nas.find_space("digits").sample(torch.Generator())
        >>> _ = nas.retrain(genotype, config, out="runs/network")
        >>> nas.load("runs/network")(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    return load_network(existing(model_folder(run)))


def previews_of(run: Path, task: Task | None = None) -> tuple[list[Preview], str]:
    """Return what the task shows of a retrained network, and why that is nothing, such as data that have moved."""
    if not (run / WEIGHTS).is_file():
        return [], ""
    try:
        return previews(load_network(run), task or config_of(run).build_task(retraining=True)), ""
    except NASError as error:
        return [], str(error)
