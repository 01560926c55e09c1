"""Decisions of a search space, and the genotype: which candidate each one took, as a strict, versioned YAML file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nas.errors import InvalidFileError, UnknownNameError
from nas.files import convert, dump_yaml, listed, parse_yaml, read_text, write_text
from nas.genotype.decision import Choice

if TYPE_CHECKING:
    from torch import nn

SCHEMA = 1

MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each schema version before `SCHEMA`, what makes the fields of a file of that version those of the next one."""


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a genotype comes from; optional, and without any effect on the network."""

    package: str = ""
    """Name and version of the package that derived it."""
    seed: int | None = None
    config: str = ""
    """Hash of the merged configuration of the search."""
    source: str = ""
    """Publication or file a genotype was taken from."""
    scores: dict[str, float] = {}
    margins: dict[str, float] = {}
    """For each decision with an alternative the lead of the chosen candidate: its mixing weight minus the runner-up's,
    in [0, 1]."""
    undecided: tuple[str, ...] = ()
    """The decisions that the search has not made (see `nas.derive.stability`)."""


class Genotype(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The choices of one network of a search space, and the options of the space they belong to.

    `Genotype.load(path)` and `genotype.save(path)` are inverse to each other. Labels declared inside a candidate that
    was not chosen are absent.

    Attributes:
        space: the name of the search space.
        choices: what each decision took, by label.
        options: options of the space.
        provenance: where the genotype comes from; without effect on the network.

    Example:
        >>> genotype = nas.Genotype.load("darts-v2")  # a file, or the name of a shipped one
        >>> genotype.save("mine.yaml")
        >>> nas.Genotype.load("mine.yaml") == genotype
        True
        >>> network = genotype.build()
    """

    space: str
    choices: dict[str, Choice]
    options: dict[str, Any] = {}
    provenance: Provenance | None = None

    @classmethod
    def load(cls, source: str | Path) -> Genotype:
        """Read a genotype from a file, or by the name of one that the package ships (`tmics-heavy`).

        Raises `InvalidFileError` (file, field, found, expected) for anything but a valid genotype of a known schema
        version, and `UnknownNameError` for a name that is neither a file nor shipped.
        """
        path = find_genotype(source)
        return cls.parse(read_text(path), str(path))

    @classmethod
    def parse(cls, text: str, where: str = "genotype") -> Genotype:
        """The genotype in a YAML text of any schema version; errors start with `where`."""
        data = parse_yaml(text, where)
        if not isinstance(data, dict):
            raise InvalidFileError(f"{where} must be a mapping with 'schema', 'space' and 'choices'")
        version = data.pop("schema", None)
        if type(version) is not int or version not in (*MIGRATIONS, SCHEMA):
            found = "has no 'schema' field" if version is None else f"has schema version {version!r}"
            known = f"versions {min(MIGRATIONS)} to {SCHEMA}" if MIGRATIONS else f"version {SCHEMA}"
            raise InvalidFileError(f"{where}: {found}; this package reads {known}")
        for older in range(version, SCHEMA):
            data = MIGRATIONS[older](data)
        if isinstance(data.get("choices"), dict):
            for label, choice in data["choices"].items():
                convert(choice, Choice, f"{where}: choices.{label}")  # type: ignore[arg-type]  # a union is a type here
        return convert(data, cls, where)

    def contested(self) -> dict[str, Choice]:
        """The choices that had an alternative in the search; all of them if no margins tell."""
        margins = self.provenance.margins if self.provenance else {}
        return {label: choice for label, choice in self.choices.items() if not margins or label in margins}

    def dump(self) -> str:
        """The YAML text."""
        data: dict[str, Any] = {"schema": SCHEMA, "space": self.space, "options": self.options}
        data["choices"] = self.choices
        if self.provenance is not None:
            data["provenance"] = self.provenance
        return dump_yaml(msgspec.to_builtins(data))

    def save(self, path: str | Path) -> None:
        """Write the genotype to a file, atomically; raises `InvalidFileError` where it cannot be written."""
        write_text(path, self.dump())

    def build(self, *, seed: int = 0) -> nn.Module:
        """Build the network that this genotype describes, at its initial weights.

        Args:
            seed: of the weights, which are a function of (seed, label, candidate).

        Raises:
            UnknownNameError: the search space is not known here; import its module first.
            SpaceError: the choices do not fit the space.

        Example:
            >>> network = nas.Genotype.load("darts-v2").build()
        """
        from nas.space.definition import find_space

        return find_space(self.space).derived(self, seed=seed)

    def draw(self, path: str | Path | None = None) -> str:
        """Draw this genotype, as a text tree or into a file.

        Args:
            path: the file to write: `.svg`, `.dot`, `.mmd` (Mermaid), `.graphml`, `.json` or `.txt`; with Graphviz
                also `.png` and `.pdf`.

        Returns:
            The text tree. Notebooks show a genotype as a picture without this method.

        Raises:
            UnknownNameError: the search space or the suffix is not known.
            SpaceError: the choices do not fit the space.

        Example:
            >>> print(nas.Genotype.load("darts-v2").draw("cell.svg"))  # doctest: +ELLIPSIS
            darts...
        """
        from nas.draw.rendering import render, save
        from nas.space.definition import find_space

        description = find_space(self.space).describe(**self.options)
        if path is not None:
            save(path, description, self)
        return render(description, self, "text")

    def _repr_html_(self) -> str:
        from nas.draw import notebook

        return notebook.genotype_html(self)

    def _repr_svg_(self) -> str | None:
        from nas.draw import notebook

        return notebook.genotype_svg(self)


def find_genotype(source: str | Path) -> Path:
    """The path of a genotype file: `source` itself, else that of a shipped genotype by this name.

    Raises `UnknownNameError` for a name that is neither.
    """
    path = Path(source)
    if os.path.isfile(path):  # a run's folder may have the name of a shipped genotype
        return path
    shipped_ = shipped()
    if str(source) not in shipped_ and path.suffix not in (".yaml", ".yml"):
        raise UnknownNameError("genotype", source, shipped_, "or give the path of a file")
    return shipped_.get(str(source), path)


def upgrade(path: str | Path) -> int:
    """Rewrite a genotype file of an older schema version in the current one; returns the version that it had.

    A file of the current version stays as it is; comments are lost. Raises what `Genotype.parse` does.
    """
    text = read_text(path)
    genotype = Genotype.parse(text, str(path))
    version: int = parse_yaml(text, str(path))["schema"]
    if version < SCHEMA:
        genotype.save(path)
    return version


def shipped() -> dict[str, Path]:
    """The genotype files that come with the package, by name."""
    inside = Path(str(resources.files("nas"))) / "genotypes"
    folder = inside if inside.is_dir() else inside.parent.parent / "genotypes"
    return {path.stem: path for path in listed(folder) if path.suffix == ".yaml"}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of genotype files, for editors and other programs."""
    schema = msgspec.json.schema(Genotype)
    body = schema["$defs"]["Genotype"]
    body["properties"] = {"schema": {"const": SCHEMA}, **body["properties"]}
    body["required"] = ["schema", *body["required"]]
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(whole))  # defaults too
    return plain
