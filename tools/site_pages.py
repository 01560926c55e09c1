"""A hook of MkDocs: it generates pages that would go stale if they were written by hand.

- an API page for each package, from the docstrings of its public modules; sources are read, never imported
- a page for each notebook in `docs/notebooks/`, with the outputs that were saved
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "search_spaces", "tmics_space")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site, and the API pages to the entry `API` of its navigation."""
    for package, modules in public_packages(ROOT).items():
        path = f"api/{package}.md"
        files.append(File.generated(config, path, content=api_page(package, modules)))
        api_entry(config.nav or [])["API"].append({package: path})
    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        content = notebook_page(json.loads(notebook.read_text(encoding="utf-8")), notebook.name)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=content))
    return files


def api_entry(nav: Sequence[Any]) -> dict[str, Any]:
    """The mapping in `nav` that has the key `API`."""
    entries = [entry for section in nav for group in section.values() for entry in group]
    return next(entry for entry in entries if isinstance(entry, dict) and "API" in entry)


# --- API pages ---


def public_packages(root: Path) -> dict[str, list[str]]:
    """Names of the public modules of each package, by the name of the package."""
    packages: dict[str, list[str]] = {}
    for init in sorted(path for name in PACKAGES for path in (root / name).rglob("__init__.py")):
        parts = init.parent.relative_to(root).parts
        if not any(part.startswith("_") for part in parts):
            modules = sorted(path.stem for path in init.parent.glob("*.py") if not path.stem.startswith("_"))
            packages[".".join(parts)] = [".".join((*parts, module)) for module in modules]
    return packages


def api_page(package: str, modules: Sequence[str]) -> str:
    """The Markdown of a package's page; mkdocstrings fills it with docstrings."""
    top = f"::: {package}\n    options: {{heading_level: 1, members: false}}\n"
    return "\n".join([top, exported_names() if package == "nas" else "", *(f"::: {module}\n" for module in modules)])


def exported_names() -> str:
    """A table of the names that `nas` exports, with the summary line of each."""
    package = griffe.load("nas", search_paths=[ROOT], allow_inspection=False)
    rows = []
    for name in package.exports or []:
        target = package[str(name)].final_target
        summary = target.docstring.value.splitlines()[0] if target.docstring else ""
        rows.append(f"| [`nas.{name}`][{target.path}] | {summary} |")
    return "\n".join(["| Name | |", "|---|---|", *rows, ""])


# --- notebooks ---


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """The Markdown of a notebook's page: its texts, its code, and its outputs as they were saved."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [block for output in cell.get("outputs", ()) for block in output_blocks(output)]
    return "\n\n".join([*parts, f"[Download this notebook]({name})\n"])


def output_blocks(output: dict[str, Any]) -> Iterator[str]:
    """The richest form of an output: HTML or SVG, else text."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    rich = data.get("text/html") or data.get("image/svg+xml")
    if rich:
        yield f'<div class="output">\n{"".join(rich)}\n</div>'
    else:
        yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"
