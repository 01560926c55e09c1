"""What the arguments of commands name: genotypes, and the configurations of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ConfigError, InvalidFileError, SpaceError, UnknownNameError

if TYPE_CHECKING:
    from nas.config import Config
    from nas.genotype import Genotype


def genotype_of(target: str) -> Genotype:
    """The genotype of a file, of a shipped name or of a run's folder.

    Raises what `Genotype.load` does, `ConfigError` for a folder without one, `InvalidFileError` for one that does not
    fit its space.
    """
    from nas.cost import measure
    from nas.genotype import Genotype
    from nas.run import GENOTYPE

    file = Path(target, GENOTYPE)
    if Path(target).is_dir() and not file.is_file():
        raise ConfigError(f"{target}: no {GENOTYPE} in this folder; `nas derive` writes that of an unfinished search")
    genotype = Genotype.load(file if file.is_file() else target)
    try:
        measure(genotype)  # builds the network, without values
    except (ConfigError, SpaceError, UnknownNameError) as error:
        raise InvalidFileError(f"{target}: {error}") from error
    return genotype


def config_of(run: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration of a run, with overrides; raises `ConfigError` for a folder that is none."""
    from nas.config import load_config
    from nas.run import CONFIG

    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run}: not the folder of a run (it has no {CONFIG})")
    return load_config(run / CONFIG, overrides)
