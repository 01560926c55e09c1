"""Pictures of search spaces and genotypes: SVG in a layout of our own, DOT, PNG and PDF by Graphviz, a text tree.

What a picture consists of (`picture`) is computed apart from its rendering, so that a caller may place it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, overload

from nas.draw.dot import dot, drawn_by_dot
from nas.draw.picture import Picture, picture
from nas.draw.svg import svg
from nas.draw.text import text
from nas.errors import UnknownNameError
from nas.files import write_atomic
from nas.genotype import Choice, Genotype
from nas.graph import graph
from nas.space import Description

__all__ = ["FORMATS", "SUFFIXES", "Format", "Picture", "picture", "render", "save", "svg"]

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
    if format not in FORMATS:
        raise UnknownNameError("picture format", format, FORMATS)
    drawn = graph(description, genotype)
    if format == "svg":
        return svg(picture(drawn))
    if format == "dot":
        return dot(drawn)
    return text(drawn) if format == "text" else drawn_by_dot(drawn, format)


def save(path: str | Path, description: Description, genotype: Choices = None) -> None:
    """Write the picture to a file in the format that its suffix names, atomically.

    Raises what `render` does, `UnknownNameError` for another suffix, `InvalidFileError` where it cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UnknownNameError("suffix of a picture", suffix or Path(path).name, SUFFIXES)
    content = render(description, genotype, SUFFIXES[suffix])
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    write_atomic(path, lambda file: file.write(data))
