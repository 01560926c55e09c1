"""The card of a model: what it is, in YAML that programs read and Markdown that people read, in one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from nas.errors import InvalidFileError
from nas.files import convert, dump_yaml, parse_yaml, read_text, write_text

CARD = "card.md"

SCHEMA = 1

SECTIONS = ("Data", "Recipe", "Scores", "Limits")
"""The headings that the text of a card must have."""

_PARTS = re.compile(r"---\n(.*?)^---\n(.*)", re.MULTILINE | re.DOTALL)

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the front matter of `card.md` states, and the text below it."""

    task: Text
    """The name of the task."""
    summary: Text
    """One line that says what the model does."""
    license: Text
    """The licence of the weights, by its SPDX identifier."""
    package: str = ""
    """Name and version of the package that trained the model."""
    parameters: int
    """The number of trained values."""
    sha256: str
    """The checksum of `weights.safetensors`."""
    scores: dict[str, float] = {}
    """The metrics of the last evaluation of the run."""
    text: str = ""
    """Markdown; not a field of the file."""

    def dump(self) -> str:
        """Return the text of the file."""
        fields = {"schema": SCHEMA, **msgspec.to_builtins(self)}
        text = fields.pop("text")
        return f"---\n{dump_yaml(fields)}---\n{text}"

    def save(self, folder: str | Path) -> None:
        """Write the card into a folder, atomically; raises `InvalidFileError` if it cannot be written."""
        write_text(Path(folder) / CARD, self.dump())


def read_card(folder: str | Path) -> Card:
    """Read the card of a model.

    Raises:
        InvalidFileError: it is missing or damaged, or a later version of the package wrote it.
    """
    path = Path(folder) / CARD
    fields, text = front_matter(path)
    version = fields.pop("schema", None)
    if version != SCHEMA:
        later = type(version) is int and version > SCHEMA
        hint = "Update the package: a later version of it wrote this model" if later else "Pack the model again"
        raise InvalidFileError(f"{path}: schema must be {SCHEMA}, got {version!r}. {hint}")
    if "text" in fields:
        raise InvalidFileError(f"{path}: unknown field 'text'; write it below the front matter")
    return convert({**fields, "text": text}, Card, str(path))


def front_matter(path: Path) -> tuple[dict[str, Any], str]:
    """Read the YAML between two lines `---` at the start of a Markdown file, and the text after it.

    Raises:
        InvalidFileError: the file has no such lines, or they contain no mapping.
    """
    parts = _PARTS.fullmatch(read_text(path).replace("\r\n", "\n"))
    fields = parse_yaml(parts[1], str(path)) if parts else None
    if parts is None or not isinstance(fields, dict):
        raise InvalidFileError(f"{path}: must begin with a mapping in YAML between two lines '---', got none")
    return fields, parts[2]


def missing_sections(text: str) -> list[str]:
    """List the headings that the text of a card lacks."""
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return [section for section in SECTIONS if section not in headings]
