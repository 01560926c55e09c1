"""The documentation site: every public module has a place in it, and every page is in the navigation."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import nas

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs")


@pytest.fixture
def site_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("site_pages")


def test_every_public_module_has_a_place_on_the_page_of_its_package(site_pages: ModuleType) -> None:
    packages = site_pages.public_packages(ROOT)
    pages = {name: site_pages.api_page(name, modules) for name, modules in packages.items()}
    files = [path for name in site_pages.PACKAGES for path in (ROOT / name).rglob("*.py")]
    public = [path.relative_to(ROOT).with_suffix("").parts for path in files]
    for parts in public:
        module, package = ".".join(parts).removesuffix(".__init__"), ".".join(parts[:-1])
        if not module.rsplit(".", 1)[-1].startswith("_"):
            assert re.search(rf"(?m)^::: {module}$", pages[package]), module
    assert len(packages) > 20


def test_every_exported_name_is_in_the_table_with_a_summary(site_pages: ModuleType) -> None:
    table = site_pages.exported_names()
    for name in nas.__all__:
        assert re.search(rf"(?m)^\| \[`nas.{name}`\]\[nas\.[\w.]+\] \| .+ \|$", table), name


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - set(re.findall(r"- ([\w/-]+)\.md$", nav, re.MULTILINE)) == set()


def test_a_notebook_becomes_a_page_with_its_outputs(site_pages: ModuleType) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["1\n", "2\n"]},
        {"output_type": "execute_result", "data": {"text/plain": ["<a>"], "text/html": ["<b>bold</b>"]}},
        {"output_type": "display_data", "data": {"text/plain": ["3"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    page = site_pages.notebook_page(json.loads(json.dumps({"cells": cells})), "a.ipynb")
    parts = ["# Title\ntext", "```python\nprint(1)\n```", "```text\n1\n2\n```", "<b>bold</b>", "```text\n3\n```"]
    places = [page.index(part) for part in (*parts, "(a.ipynb)")]
    assert places == sorted(places)
    assert "<a>" not in page
