"""Pictures of search spaces and genotypes: SVG in a layout of our own, DOT, Mermaid, PNG and PDF by Graphviz, a text
tree; and their graphs as GraphML and as node-link JSON.

What a picture consists of (`picture`) is computed apart from its rendering, so that a caller may place it elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args, overload

from nas.draw.dot import dot, drawn_by_dot
from nas.draw.marks import marked
from nas.draw.mermaid import mermaid
from nas.draw.picture import Picture, picture
from nas.draw.svg import svg
from nas.draw.text import text
from nas.draw.theme import Theme
from nas.errors import ConfigError, UnknownNameError
from nas.files import write_atomic
from nas.genotype import Choice, Genotype
from nas.graph import Cells, Graph, graph
from nas.graph.exchange import graphml, node_link
from nas.space import Description, find_space

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "Format",
    "Picture",
    "difference",
    "picture",
    "render",
    "save",
    "save_difference",
    "svg",
]

Format = Literal["svg", "dot", "png", "pdf", "mermaid", "graphml", "json", "text"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: Mapping[str, Format] = {
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".png": "png",
    ".pdf": "pdf",
    ".mmd": "mermaid",
    ".graphml": "graphml",
    ".json": "json",
    ".txt": "text",
}

Choices = Genotype | Mapping[str, Choice] | None


@overload
def render(
    description: Description,
    genotype: Choices = None,
    format: Literal["svg", "dot", "mermaid", "graphml", "json", "text"] = "svg",
    *,
    cells: Cells = "beside",
    theme: Theme = "light",
) -> str: ...
@overload
def render(
    description: Description,
    genotype: Choices,
    format: Format,
    *,
    cells: Cells = "beside",
    theme: Theme = "light",
) -> str | bytes: ...
def render(
    description: Description,
    genotype: Choices = None,
    format: Format = "svg",
    *,
    cells: Cells = "beside",
    theme: Theme = "light",
) -> str | bytes:
    """The picture of a search space, or of one genotype of it.

    `cells` says where their inside is shown (see `nas.graph.graph`). Returns text, or bytes for `png` and `pdf`, which
    Graphviz' program `dot` draws. Raises `UnknownNameError` for another format, `SpaceError` for a genotype that does
    not fit, `ConfigError` where `dot` is needed and missing, and for a dark picture in another format than SVG.
    """
    return _rendered(graph(description, genotype, cells), format, theme)


def save(
    path: str | Path,
    description: Description,
    genotype: Choices = None,
    *,
    cells: Cells = "beside",
    theme: Theme = "light",
) -> None:
    """Write the picture to a file in the format that its suffix names, atomically.

    Raises what `render` does, `UnknownNameError` for another suffix, `InvalidFileError` where it cannot be written.
    """
    format = _format(path)
    _write(path, _rendered(graph(description, genotype, cells), format, theme))


def difference(before: Genotype, after: Genotype) -> Graph:
    """The graph of `after`, in which what distinguishes it from `before` is marked; what it lacks is there, too.

    Raises `ConfigError` for genotypes of two spaces, and what `nas.graph.graph` does.
    """
    if before.space != after.space:
        raise ConfigError(f"genotypes of two spaces, '{before.space}' and '{after.space}', make no one picture")
    space = find_space(after.space)
    return marked(*(graph(space.describe(**genotype.options), genotype) for genotype in (before, after)))


def save_difference(path: str | Path, before: Genotype, after: Genotype) -> None:
    """Write a picture of `after`, in which what distinguishes it from `before` is marked; what it lacks is dashed.

    Raises what `save` and `difference` do.
    """
    format = _format(path)
    _write(path, _rendered(difference(before, after), format, "light"))


_TEXTS: Mapping[str, Callable[[Graph], str]] = {
    "dot": dot,
    "mermaid": mermaid,
    "graphml": graphml,
    "json": node_link,
    "text": text,
}


def _format(path: str | Path) -> Format:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UnknownNameError("suffix of a picture", suffix or Path(path).name, SUFFIXES)
    return SUFFIXES[suffix]


def _rendered(drawn: Graph, format: Format, theme: Theme) -> str | bytes:
    if format not in FORMATS:
        raise UnknownNameError("picture format", format, FORMATS)
    if format == "svg":
        return svg(picture(drawn), theme)
    if theme == "dark":
        raise ConfigError(f"dark pictures are SVG, found {format}")
    if format == "png" or format == "pdf":
        return drawn_by_dot(drawn, format)
    return _TEXTS[format](drawn)


def _write(path: str | Path, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    write_atomic(path, lambda file: file.write(data))
