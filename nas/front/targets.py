"""What a text names: a genotype file, a shipped genotype, the folder of a run, the configuration of a run.

Heavy imports happen inside the functions, so that the command line starts quickly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ConfigError, InvalidFileError, MissingFileError, SpaceError, UnknownNameError, nearest

if TYPE_CHECKING:
    from nas.genotype.file import Genotype
    from nas.run.config import Config, Overrides


def genotype_file(target: str | Path) -> Path:
    """Return the path of a genotype: of a file, of a shipped genotype or model, or of a run's folder.

    Raises:
        UnknownNameError: neither a file nor shipped.
        ConfigError: a folder without a genotype.
    """
    from nas.genotype.file import find_genotype
    from nas.run.folder import GENOTYPE
    from nas.run.models import model_folder

    file = model_folder(target) / GENOTYPE
    if Path(target).is_dir() and not file.is_file():
        raise ConfigError(f"{target}: no {GENOTYPE} in this folder; `nas derive` writes that of an unfinished search")
    return file if file.is_file() else find_genotype(target)


def genotype_of(target: str | Path) -> Genotype:
    """Return the genotype that `genotype_file` finds.

    Raises:
        UnknownNameError: neither a file nor shipped.
        ConfigError: a folder without a genotype.
        InvalidFileError: not a genotype, or one that does not fit its space.
    """
    from nas.cost.network_cost import measure
    from nas.genotype.file import Genotype

    genotype = Genotype.load(genotype_file(target))
    try:
        measure(genotype)  # builds the network, without values
    except (ConfigError, SpaceError, UnknownNameError) as error:
        raise InvalidFileError(f"{target}: {error}") from error
    return genotype


def config_of(run: str | Path, overrides: Overrides = ()) -> Config:
    """Return the configuration of a run, with overrides.

    Raises:
        MissingFileError: no such folder.
        ConfigError: the folder holds no run.
    """
    from nas.run.config import load_config
    from nas.run.folder import CONFIG

    run = existing(run)
    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run}: not the folder of a run (it has no {CONFIG})")
    return load_config(run / CONFIG, overrides)


def existing(run: str | Path) -> Path:
    """Return the path of a run or model.

    Raises:
        MissingFileError: no such folder.
        ConfigError: it is a genotype.
    """
    from nas.genotype.file import shipped
    from nas.registry import kind

    run = Path(run)
    if not run.exists() and (str(run) in shipped() or run.suffix in (".yaml", ".yml")):
        raise ConfigError(
            f"{run}: a genotype has no weights; train its network by `nas retrain {run} --config CONFIG --out FOLDER`,"
            " and give that folder"
        )
    if not run.exists():
        known = kind("model").names()
        raise MissingFileError(
            f"{run}: no such folder and no model of this name{nearest(str(run), known)}; expected the folder of a run"
            f" of `nas search` or `nas retrain`, or a model: {', '.join(known) or 'none is installed'}"
        )
    return run
