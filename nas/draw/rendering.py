"""Draw search spaces and genotypes in any format.

SVG uses the layout of this package; PNG and PDF need Graphviz. DOT, Mermaid, a text tree, GraphML and node-link JSON
are texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args, overload

from nas.draw.dot import run_dot, to_dot
from nas.draw.marks import marked
from nas.draw.mermaid import to_mermaid
from nas.draw.picture import make_picture
from nas.draw.svg import to_svg
from nas.draw.text import to_text
from nas.draw.theme import Theme
from nas.errors import ConfigError, UnknownNameError
from nas.files import write_atomic
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.graph.exchange import graphml, node_link
from nas.graph.network_graph import Cells, Graph, build_graph
from nas.space.definition import Description, find_space

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
    """Draw a search space, or one of its genotypes.

    Args:
        description: the space, described with its options.
        genotype: the genotype, or choices by label; None draws all candidates.
        format: the format.
        cells: where the inside of a cell is shown: `beside`, `open` or `closed` (see
            `nas.graph.network_graph.build_graph`).
        theme: `light` or, for SVG alone, `dark`.

    Returns:
        Text, or bytes for `png` and `pdf`.

    Raises:
        UnknownNameError: the format is unknown.
        SpaceError: the genotype does not fit the space.
        ConfigError: the format needs Graphviz, which is missing, or has no dark theme.
    """
    return _rendered(build_graph(description, genotype, cells), format, theme)


def save(
    path: str | Path,
    description: Description,
    genotype: Choices = None,
    *,
    cells: Cells = "beside",
    theme: Theme = "light",
) -> None:
    """Draw as `render` does, and write the picture to a file atomically.

    Args:
        path: the file; its suffix selects the format (`SUFFIXES`).
        description: as in `render`.
        genotype: as in `render`.
        cells: as in `render`.
        theme: as in `render`.

    Raises:
        UnknownNameError: the suffix is unknown.
        InvalidFileError: the file cannot be written.
        SpaceError: as in `render`.
        ConfigError: as in `render`.
    """
    format = _format(path)
    _write(path, _rendered(build_graph(description, genotype, cells), format, theme))


def difference(before: Genotype, after: Genotype) -> Graph:
    """Build the graph of `after` with its differences from `before` marked. Removed nodes and edges are included.

    Raises:
        ConfigError: the genotypes belong to different spaces.
        SpaceError: a genotype does not fit its space.
    """
    if before.space != after.space:
        raise ConfigError(f"both genotypes must be of one space, got '{before.space}' and '{after.space}'")
    space = find_space(after.space)
    return marked(*(build_graph(space.describe(**genotype.options), genotype) for genotype in (before, after)))


def save_difference(path: str | Path, before: Genotype, after: Genotype) -> None:
    """Write the picture of `difference` to a file. Removed nodes and edges are dashed. Raises as `save` does."""
    format = _format(path)
    _write(path, _rendered(difference(before, after), format, "light"))


_TEXTS: Mapping[str, Callable[[Graph], str]] = {
    "dot": to_dot,
    "mermaid": to_mermaid,
    "graphml": graphml,
    "json": node_link,
    "text": to_text,
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
        return to_svg(make_picture(drawn), theme)
    if theme == "dark":
        raise ConfigError(f"format of a dark picture must be svg, got {format}")
    if format == "png" or format == "pdf":
        return run_dot(drawn, format)
    return _TEXTS[format](drawn)


def _write(path: str | Path, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    write_atomic(path, lambda file: file.write(data))
