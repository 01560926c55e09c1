"""What the arguments of commands name: genotypes, and the configurations of runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError, InvalidFileError, SpaceError, UnknownNameError

if TYPE_CHECKING:
    from nas.config import Config
    from nas.genotype import Genotype


def genotype_file(target: str) -> Path:
    """The path of a genotype: of a file, of a shipped name or of a run's folder.

    Raises what `find_genotype` does, and `ConfigError` for a folder without one.
    """
    from nas.genotype import find_genotype
    from nas.run import GENOTYPE

    file = Path(target, GENOTYPE)
    if Path(target).is_dir() and not file.is_file():
        raise ConfigError(f"{target}: no {GENOTYPE} in this folder; `nas derive` writes that of an unfinished search")
    return file if file.is_file() else find_genotype(target)


def genotype_of(target: str) -> Genotype:
    """The genotype that `genotype_file` finds.

    Raises what that and `Genotype.load` do, and `InvalidFileError` for one that does not fit its space.
    """
    from nas.cost import measure
    from nas.genotype import Genotype

    genotype = Genotype.load(genotype_file(target))
    try:
        measure(genotype)  # builds the network, without values
    except (ConfigError, SpaceError, UnknownNameError) as error:
        raise InvalidFileError(f"{target}: {error}") from error
    return genotype


def options_of(given: Iterable[str]) -> dict[str, Any]:
    """The options in texts `name=value`; raises `ConfigError` for a text of another form."""
    from nas.files import parse_yaml

    options = {}
    for option in given:
        name, equals, text = option.partition("=")
        if not equals:
            raise ConfigError(f"'{option}' is not an option: expected name=value")
        options[name] = parse_yaml(text, option)
    return options


def config_of(run: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration of a run, with overrides; raises `ConfigError` for a folder that is none."""
    from nas.config import load_config
    from nas.genotype import shipped
    from nas.run import CONFIG

    if not run.exists() and (str(run) in shipped() or run.suffix in (".yaml", ".yml")):
        raise ConfigError(
            f"{run}: a genotype has no weights; train its network by `nas retrain {run} --config CONFIG --out FOLDER`,"
            " and give that folder"
        )
    if not run.exists():
        raise ConfigError(f"{run}: no such folder; expected that of a run of `nas search` or `nas retrain`")
    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run}: not the folder of a run (it has no {CONFIG})")
    return load_config(run / CONFIG, overrides)
