"""A package of somebody else, made of the examples in docs/extending.md, works by its entry points alone."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import processes
from nas.genotype.file import Genotype
from nas.registry import kinds
from nas.run.folder import read_versions

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.partition("## Test your parts")[0], re.MULTILINE | re.DOTALL)


(CONFIG,) = blocks("yaml")
(PROJECT,) = blocks("toml")
POINTS = tomllib.loads(PROJECT)["project"]["entry-points"]
MODULE = re.sub(r'^@nas\.register\(.*\)\n|\.register\("small"\)', "", "\n\n".join(blocks("python")), flags=re.MULTILINE)
"""The parts of the page, without registration."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the search path with the package, as `pip install` leaves it."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (folder / "my_package.py").write_text(MODULE, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n", encoding="utf-8")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in POINTS.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    return folder


def nas(package: Path, folder: Path, *arguments: str) -> str:
    """Run the command in a process of its own; return what it prints."""
    output, errors = folder / "output", folder / "errors"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(package)
        process = processes.start(*arguments, errors=errors, output=output)
    assert processes.finish(process) == 0, errors.read_text()
    return output.read_text()


def test_the_package_has_a_part_of_each_kind() -> None:
    assert "register(" not in MODULE.replace("super().", "")
    assert {each.group for each in kinds.values() if each.group.startswith("nas.")} <= POINTS.keys()
    names = [name for group in POINTS.values() for name in group]
    assert [name for name in names if not re.search(rf"\b{name}\b", CONFIG) and name not in UNNAMED] == []


UNNAMED = (
    "at_once", "brightness", "chain-table", "first-convolution", "gate", "greedy", "output_norm", "small-chain", "words"
)  # fmt: skip
"""What that configuration does not name: a freezing, which levels with responses refuse, the base of its task, a table,
weights, a searcher, a score, a model, a format."""


def test_a_configuration_names_its_parts_without_an_import(package: Path, tmp_path: Path) -> None:
    (tmp_path / "extended.yaml").write_text(CONFIG, encoding="utf-8")
    nas(package, tmp_path, "search", "extended.yaml", "--out", "search", "--quiet")
    run = tmp_path / "search"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["norm"] >= 0 for record in records if record.get("observer") == "arch_norm"] == [True, True]
    assert any("no_skips" in json.dumps(record) for record in records)
    assert read_versions(run).modules == ()
    genotype = Genotype.load(run / "genotype.yaml")
    assert genotype.options["operations"] == "small"

    nas(package, tmp_path, "retrain", "search", "--out", "network", "--quiet")
    assert (tmp_path / "network" / "genotype.yaml").is_file()

    (card,) = blocks("markdown")
    (tmp_path / "card.md").write_text(card, encoding="utf-8")
    nas(package, tmp_path, "models", "pack", "network", str(package / "small-chain"), "--card", "card.md")
    assert re.search(r"^small-chain +noisy-brightness +\d+ +\d+ kB +CC0-1.0 ", nas(package, tmp_path, "models"), re.M)

    words = nas(package, tmp_path, "genotype", "export", "search", "--format", "words")
    assert words.split() == list(genotype.choices.values())
    (tmp_path / "words.txt").write_text(words, encoding="utf-8")
    nas(package, tmp_path, "genotype", "import", "words.txt", "--format", "words", "--out", "imported.yaml")
    assert Genotype.load(tmp_path / "imported.yaml").choices == genotype.choices


def test_its_searcher_and_score_search(package: Path, tmp_path: Path) -> None:
    (tmp_path / "extended.yaml").write_text(CONFIG, encoding="utf-8")
    proposing = ["search.searcher=greedy", "search.score=output_norm", "search.evaluations=3"]
    printed = nas(package, tmp_path, "search", "extended.yaml", *proposing, "--out", "greedy", "--quiet")
    assert "genotype: greedy/genotype.yaml" in printed
    records = [json.loads(line) for line in (tmp_path / "greedy" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "evaluation"] == [1, 2, 3]


def test_its_parts_are_listed_and_checked(package: Path, tmp_path: Path) -> None:
    assert re.search(r"^chain +2 .*my_package:chain", nas(package, tmp_path, "spaces"), re.MULTILINE)
    assert "10 passed" in nas(package, tmp_path, "check", "gate")


def test_its_score_is_correlated_with_a_table(package: Path, tmp_path: Path) -> None:
    given = ("chain-table", "output_norm", "--input", "2x1x6x6", "--sample", "5")
    printed = nas(package, tmp_path, "correlate", *given)
    assert re.search(r"^output_norm +noise 2x1x6x6 +5 +9 +test ", printed, re.MULTILINE)


def test_its_searcher_is_compared_on_its_table(package: Path, tmp_path: Path) -> None:
    assert re.search(r"^chain-table +chain +9 +toy +val, test", nas(package, tmp_path, "benchmark"), re.MULTILINE)
    printed = nas(package, tmp_path, "benchmark", "chain-table", "--seeds", "3", "--evaluations", "20")
    assert {"greedy", "random"} <= set(re.findall(r"^(\w+) +20 ", printed, re.MULTILINE))
    named = nas(package, tmp_path, "benchmark", "nas-bench-201", "greedy", "--seeds", "2", "--evaluations", "20")
    assert re.search(r"^greedy +20 +\d+\.\d+ ", named, re.MULTILINE)
