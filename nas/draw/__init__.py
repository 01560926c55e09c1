"""Pictures of search spaces and genotypes: SVG in a layout of our own, DOT, PNG and PDF by Graphviz, a text tree.

What a picture consists of (`picture`) is computed apart from its rendering, so that a caller may place it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, overload

from nas.draw.dot import dot, drawn_by_dot
from nas.draw.marks import marked
from nas.draw.picture import Picture, picture
from nas.draw.svg import svg
from nas.draw.text import text
from nas.errors import ConfigError, UnknownNameError
from nas.files import write_atomic
from nas.genotype import Choice, Genotype
from nas.graph import Graph, graph
from nas.space import Description, find_space

__all__ = ["FORMATS", "SUFFIXES", "Format", "Picture", "picture", "render", "save", "save_difference", "svg"]

Format = Literal["svg", "dot", "png", "pdf", "text"]
FORMATS: tuple[Format, ...] = ("svg", "dot", "png", "pdf", "text")
SUFFIXES: Mapping[str, Format] = {
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".png": "png",
    ".pdf": "pdf",
    ".txt": "text",
}

Choices = Genotype | Mapping[str, Choice] | None


@overload
def render(
    description: Description, genotype: Choices = None, format: Literal["svg", "dot", "text"] = "svg"
) -> str: ...
@overload
def render(description: Description, genotype: Choices, format: Literal["png", "pdf"]) -> bytes: ...
@overload
def render(description: Description, genotype: Choices, format: Format) -> str | bytes: ...
def render(description: Description, genotype: Choices = None, format: Format = "svg") -> str | bytes:
    """The picture of a search space, or of one genotype of it (see `nas.graph.graph`).

    Returns text, or bytes for `png` and `pdf`, which Graphviz' program `dot` draws. Raises `UnknownNameError` for
    another format, `SpaceError` for a genotype that does not fit, `ConfigError` where `dot` is needed and missing.
    """
    return _rendered(graph(description, genotype), format)


def save(path: str | Path, description: Description, genotype: Choices = None) -> None:
    """Write the picture to a file in the format that its suffix names, atomically.

    Raises what `render` does, `UnknownNameError` for another suffix, `InvalidFileError` where it cannot be written.
    """
    format = _format(path)
    _write(path, graph(description, genotype), format)


def save_difference(path: str | Path, before: Genotype, after: Genotype) -> None:
    """Write a picture of `after`, in which what distinguishes it from `before` is marked; what it lacks is dashed.

    Raises what `save` does, and `ConfigError` for genotypes of two spaces.
    """
    if before.space != after.space:
        raise ConfigError(f"genotypes of two spaces, '{before.space}' and '{after.space}', make no one picture")
    format = _format(path)
    space = find_space(after.space)
    graphs = [graph(space.describe(**genotype.options), genotype) for genotype in (before, after)]
    _write(path, marked(*graphs), format)


def _format(path: str | Path) -> Format:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UnknownNameError("suffix of a picture", suffix or Path(path).name, SUFFIXES)
    return SUFFIXES[suffix]


def _rendered(drawn: Graph, format: Format) -> str | bytes:
    if format not in FORMATS:
        raise UnknownNameError("picture format", format, FORMATS)
    if format == "svg":
        return svg(picture(drawn))
    if format == "dot":
        return dot(drawn)
    return text(drawn) if format == "text" else drawn_by_dot(drawn, format)


def _write(path: str | Path, drawn: Graph, format: Format) -> None:
    content = _rendered(drawn, format)
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    write_atomic(path, lambda file: file.write(data))
