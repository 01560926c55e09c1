"""What the folder of a run holds, read once: the source of every report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nas.config import Config, load_config
from nas.errors import InvalidFileError, NASError
from nas.files import read_text
from nas.genotype import Genotype
from nas.observe import INDICATORS
from nas.report import history
from nas.run import CONFIG, GENOTYPE, ORIGIN, Record, Versions, read_genotypes, read_records, read_versions


@dataclass(frozen=True)
class Recorded:
    """A run, finished or not."""

    folder: Path
    versions: Versions
    config_text: str
    records: list[Record]
    genotypes: dict[int, Genotype]
    """What a search derived at the end of each epoch, by step."""
    final: Genotype | None

    @property
    def name(self) -> str:
        """The name of the folder, with that of the folder around it."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if folder.parent.name else folder.name

    @property
    def genotype(self) -> Genotype | None:
        """The final genotype, else that of the latest epoch."""
        return self.final or next(reversed(self.genotypes.values()), None)

    @property
    def steps(self) -> int:
        """The steps recorded."""
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
        return [record for record in self.records if record.get("kind") == INDICATORS]

    @property
    def evaluations(self) -> list[Record]:
        """The records of evaluations."""
        return [record for record in self.records if record.get("kind") == "evaluate"]

    @property
    def scores(self) -> dict[str, float]:
        """The numbers of the last evaluation."""
        last = self.evaluations[-1] if self.evaluations else {}
        return {name: value for name, value in last.items() if name != "step" and isinstance(value, int | float)}

    @cached_property
    def config(self) -> Config | None:
        """The configuration; None where this program cannot read it, such as without the module of its space."""
        try:
            return load_config(self.folder / CONFIG)
        except NASError:
            return None

    @property
    def search(self) -> Path | None:
        """The folder of the search that a run began with, where it is recorded and still there."""
        names = [record["search"] for record in self.records if record.get("kind") == ORIGIN]
        folder = self.folder / names[-1] if names else None
        return folder if folder is not None and (folder / CONFIG).is_file() else None


def read_run(folder: str | Path) -> Recorded:
    """Read the folder of a run; raises `InvalidFileError` where it is none, or one of its files is damaged."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        missing = f"not the folder of a run (it has no {CONFIG})" if folder.exists() else "no such folder"
        raise InvalidFileError(f"{folder}: {missing}; expected that of a run of `nas search` or `nas retrain`")
    final = folder / GENOTYPE
    return Recorded(
        folder,
        read_versions(folder),
        read_text(folder / CONFIG),
        read_records(folder),
        read_genotypes(folder),
        Genotype.load(final) if final.is_file() else None,
    )
