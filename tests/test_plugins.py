"""Installed packages that are broken: an error for who asks for them, a warning for who wants all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.config import find_config, shipped_configs
from nas.errors import ConfigError
from nas.importing import find_exporter, find_importer, importers
from nas.plugins import those_that_work
from nas.space import find_space, spaces
from nas.task import find_task


def working_spaces() -> dict[str, Any]:
    return dict(those_that_work(spaces(), find_space))


GROUPS = ("search_spaces", "tasks", "importers", "exporters")

BROKEN = {
    "needs what is not there": (
        "import a_package_that_is_not_there",
        "ModuleNotFoundError: No module named 'a_package_",
    ),
    "is no Python": ("def", "SyntaxError"),
    "raises": ("raise RuntimeError('no\\nGPU')", "RuntimeError: no GPU"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "lacks the name": ("", "AttributeError: module 'a_broken_plugin' has no attribute 'it'"),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Install a package with one module of this code, which offers something called `broken` in every group."""

    def install(code: str) -> None:
        (tmp_path / "a_broken_plugin.py").write_text(code)
        info = tmp_path / "A_Broken_Package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: A-Broken-Package\nVersion: 1.0\n")
        points = "".join(f"[nas.{group}]\nbroken = a_broken_plugin:it\n" for group in GROUPS)
        (info / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("a_broken_plugin", None)


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("find", [find_space, find_task, find_importer, find_exporter])
def test_who_asks_for_it_is_told_the_package_and_the_reason(
    install: Callable[[str], None], find: Callable[[str], Any], how: str
) -> None:
    code, reason = BROKEN[how]
    install(code)
    with pytest.raises(ConfigError) as caught:
        find("broken")
    message = str(caught.value)
    assert "'broken': a_broken_plugin:it of the installed package 'A-Broken-Package' cannot be imported" in message
    assert reason in message
    assert message.endswith("or uninstall it by `pip uninstall A-Broken-Package`")
    assert "\n" not in message


@pytest.mark.parametrize("how", BROKEN)
def test_who_wants_all_is_warned_and_gets_the_others(install: Callable[[str], None], how: str) -> None:
    expected = list(working_spaces()), shipped_configs()
    code, reason = BROKEN[how]
    install(code)
    for want in (working_spaces, shipped_configs):
        with pytest.warns(UserWarning, match="left out search space 'broken': .* package 'A-Broken-Package'") as caught:
            want()
        assert len(caught) == 1
        assert reason in str(caught[0].message)
    with pytest.warns(UserWarning, match="A-Broken-Package"):
        assert (list(working_spaces()), shipped_configs()) == expected
    with pytest.warns(UserWarning, match="A-Broken-Package"):
        assert find_config("demo").name == "demo.yaml"
    assert "broken" in spaces()
    assert "broken" in importers()


def test_who_asks_for_another_is_not_bothered(install: Callable[[str], None]) -> None:
    install("raise RuntimeError")
    assert find_space("tmics").name == "tmics"
    assert find_task("derain").__name__ == "DerainTask"
    assert find_importer("darts")
    assert find_exporter("darts")
    assert "a_broken_plugin" not in sys.modules
