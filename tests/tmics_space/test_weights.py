"""The weights that the package ships for parts of networks are what their pages say."""

from __future__ import annotations

import hashlib
import re

from tmics_space.weights import compact_flow


def test_the_page_is_about_the_file() -> None:
    page = compact_flow().with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(compact_flow().read_bytes()).hexdigest() in page
    assert re.findall("^## (.*)", page, re.MULTILINE) == ["Licence", "Data", "Recipe", "Scores", "Limits"]
