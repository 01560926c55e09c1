"""The command that continues a run: its own, or that of the tuning or of the search of which it is a part."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec

from nas.errors import InvalidFileError, MissingFileError, without_password
from nas.files import convert, dump_yaml, parse_yaml, read_text, write_text
from nas.run.folder import CONFIG, GENOTYPE, VERSIONS, read_versions
from nas.run.judge import EVALUATIONS, SUPERNET

TUNING = "tuning.yaml"
"""Holds the settings of the last call of a tuning, in the folder of its trials."""


class TuningCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The arguments of a tuning that its configuration does not hold."""

    trials: int
    train: str = "train"
    score: str = "val"
    storage: str | None = None
    """The default is the journal in the folder. A password is left out."""
    study: str | None = None
    prune: bool = True
    genotypes: tuple[str, ...] = ()
    """The names of several genotypes that are retrained."""
    grace: float | None = None
    """In seconds, if it is not the default."""

    def save(self, folder: Path) -> None:
        """Write the arguments to the folder of the trials."""
        shown = None if self.storage is None else without_password(self.storage)
        call = msgspec.structs.replace(self, storage=shown)
        write_text(folder / TUNING, dump_yaml(msgspec.to_builtins(call)))

    @classmethod
    def load(cls, folder: Path) -> TuningCall:
        """Read what `save` wrote; raises `InvalidFileError`."""
        path = folder / TUNING
        return convert(parse_yaml(read_text(path), str(path)), cls, str(path))

    def words(self, folder: Path) -> list[str | Path]:
        """Return the words of the command."""
        given = {"--storage": self.storage, "--study": self.study, "--train": self.train, "--score": self.score}
        given["--grace"] = None if self.grace is None else f"{self.grace:g}"
        usual = TuningCall(self.trials)
        options = {option: value for option, value in given.items() if value != getattr(usual, option[2:])}
        if (folder / GENOTYPE).is_file():
            options["--genotype"] = str(folder / GENOTYPE)
        words: list[str | Path] = ["tune", folder / CONFIG, "--trials", str(self.trials), "--out", folder]
        words += [word for name in self.genotypes for word in ("--genotype", name)]
        words += [word for pair in options.items() for word in pair if word is not None]
        return words if self.prune else [*words, "--no-pruning"]


def command(folder: Path, kind: str) -> str:
    """Return the command that continues the run in a folder.

    Args:
        folder: of the run.
        kind: `search` or `retrain`.
    """
    try:
        modules = read_versions(folder).modules
    except InvalidFileError:
        modules = ()
    return shlex.join(map(str, ["nas", *_words(folder, kind), *(word for m in modules for word in ("--import", m))]))


def _words(folder: Path, kind: str) -> list[str | Path]:
    if re.fullmatch(r"trial-\d+", folder.parent.name):
        try:
            return TuningCall.load(folder.parent.parent).words(folder.parent.parent)
        except MissingFileError:
            pass  # a folder that has such a name for another reason
        except InvalidFileError:
            return ["tune", folder.parent.parent / CONFIG, "--trials", "N", "--out", folder.parent.parent]
    inner = {EVALUATIONS: folder.parent.parent, SUPERNET: folder.parent}
    search = inner.get(folder.parent.name) or inner.get(folder.name)
    if search is not None and (search / VERSIONS).is_file():
        folder, kind = search, "search"
    what = ["retrain", folder / GENOTYPE, "--config"] if kind == "retrain" else ["search"]
    return [*what, folder / CONFIG, "--out", folder, "--resume"]
