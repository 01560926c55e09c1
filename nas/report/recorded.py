"""Read the folder of a run, for all reports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nas.errors import InvalidFileError, NASError
from nas.files import read_text
from nas.genotype.file import Genotype
from nas.report import history
from nas.report.pictures import describe
from nas.run.collapse import COLLAPSE
from nas.run.config import Config, load_config
from nas.run.folder import CONFIG, GENOTYPE, ORIGIN, Record, Versions, read_genotypes, read_records, read_versions
from nas.run.loop import FROZEN
from nas.run.observer import OBSERVER, observed
from nas.run.stopping import STOPPING, told
from nas.space.definition import Description


@dataclass(frozen=True)
class Recorded:
    """A run, finished or not."""

    folder: Path
    versions: Versions
    config_text: str
    records: list[Record]
    genotypes: dict[int, Genotype]
    """Genotypes derived by a search at the end of each epoch, by step."""
    final: Genotype | None

    @property
    def name(self) -> str:
        """Name of the folder and its parent folder."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if folder.parent.name else folder.name

    @property
    def genotype(self) -> Genotype | None:
        """The final genotype, or else the one of the last epoch."""
        return self.final or next(reversed(self.genotypes.values()), None)

    @cached_property
    def description(self) -> Description | None:
        """The search space of the genotype; raises `UnknownNameError` if its module is not loaded."""
        return describe(self.genotype) if self.genotype else None

    @property
    def steps(self) -> int:
        """Last recorded step."""
        return max((record["step"] for record in self.records if "step" in record), default=0)

    @cached_property
    def mixing(self) -> dict[str, history.Mixing]:
        """The mixing weights of each decision; empty for a retraining."""
        return history.mixing(self.records)

    @cached_property
    def losses(self) -> dict[str, history.Series]:
        """The loss of each level, or of each stage of a retraining."""
        return history.losses(self.records)

    @property
    def epochs(self) -> list[Record]:
        """The records of the collapse indicators."""
        return observed(self.records, COLLAPSE)

    @cached_property
    def observers(self) -> dict[str, dict[str, history.Series]]:
        """Series of the values recorded by each observer."""
        found: dict[str, dict[str, history.Series]] = {}
        for name, series in history.scalars(self.records, OBSERVER).items():
            observer, _, value = name.partition("/")
            found.setdefault(observer, {})[value] = series
        return found

    @property
    def stop(self) -> str:
        """How a stopping rule ended the search, as a sentence; empty if none did."""
        return next((told(record) for record in self.records if record["kind"] == STOPPING), "")

    @property
    def frozen(self) -> list[tuple[int, str, str]]:
        """The operations that were frozen: step, how many of the level's operations, their names."""
        found = [record for record in self.records if record["kind"] == FROZEN]
        return [(r["step"], f"{len(r['operations'])} of {r['of']}", ", ".join(r["operations"])) for r in found]

    @property
    def evaluations(self) -> list[Record]:
        """The records of evaluations."""
        return [record for record in self.records if record.get("kind") == "evaluate"]

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the last evaluation."""
        last = self.evaluations[-1] if self.evaluations else {}
        return {name: value for name, value in last.items() if name != "step" and isinstance(value, int | float)}

    @property
    def headings(self) -> dict[str, str]:
        """The names of the scores, with ↑ if larger is better and ↓ if smaller is, as far as the run recorded it."""
        best = self.evaluations[-1].get("best", {}) if self.evaluations else {}
        return {name: name + {"max": " ↑", "min": " ↓"}.get(best.get(name, ""), "") for name in self.scores}

    @cached_property
    def config(self) -> Config | None:
        """The configuration; None if it cannot be read here, for example without the module of its space."""
        try:
            return load_config(self.folder / CONFIG)
        except NASError:
            return None

    @property
    def search(self) -> Path | None:
        """Folder of the search from which a run started, if it is recorded and exists."""
        names = [record["search"] for record in self.records if record.get("kind") == ORIGIN]
        folder = self.folder / names[-1] if names else None
        return folder if folder is not None and (folder / CONFIG).is_file() else None


def read_run(folder: str | Path) -> Recorded:
    """Read the folder of a run.

    Raises:
        InvalidFileError: the folder is no run, or one of its files is damaged.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        found = f"a folder without {CONFIG}" if folder.exists() else "no folder"
        raise InvalidFileError(f"{folder} must be the folder of a run of `nas search` or `nas retrain`, got {found}")
    final = folder / GENOTYPE
    return Recorded(
        folder,
        read_versions(folder),
        read_text(folder / CONFIG),
        read_records(folder),
        read_genotypes(folder),
        Genotype.load(final) if final.is_file() else None,
    )
