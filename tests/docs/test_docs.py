"""What the pages of docs/ say holds: their code and commands run, their files parse, their links lead somewhere.

The blocks of a page are taken in order, in one folder. One that begins with `# NAME.py` or `# NAME.yaml` is a file,
saved there with those of all pages; any other Python block is run, and a text block behind it is what it prints. In
console blocks every `$ nas` line is run, its configuration checked as it stands and then made small; lines under it are
lines that it prints, in order, `...` others between them.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import nas.cli
import nas.cli.running
import nas.cli.tuning
import nas.config
import nas.operations
import nas.primitives
import nas.task
import nas.tune
import tmics_space.flow.provider
from nas.cli.targets import genotype_of
from nas.config import Config
from nas.files import convert, parse_yaml
from nas.genotype import Genotype, Provenance
from nas.hypergradient import RESPONSES
from nas.importing import importers
from nas.levels import Level
from nas.regularize import REGULARIZERS
from nas.space import find_space
from nas.testing import SearchSpaceTests
from nas.tune import KINDS
from search_spaces.classification.augment import Augmentation
from search_spaces.classification.cifar import CIFAR10, CIFAR100
from search_spaces.classification.folders import Folders
from search_spaces.classification.handwriting import Digits
from search_spaces.classification.idx import IDX
from search_spaces.classification.task import ClassificationConfig
from tmics_space.averaging import MODES
from tmics_space.data import PRESETS, CameraMotion, layouts, moving_texture, write_frames
from tmics_space.data.layouts import Layout
from tmics_space.data.sources import Films, Pairs
from tmics_space.flow import flow_providers
from tmics_space.metrics.protocol import PROTOCOLS
from tmics_space.operations import AUTHORS_NAMES, OPERATIONS
from tmics_space.task import DerainConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}


class Block(NamedTuple):
    kind: str
    text: str
    line: int

    @property
    def file(self) -> str:
        name = re.match(r"# (\S+\.(?:py|yaml))\n", self.text)
        return name[1] if name else ""


def blocks(page: str) -> list[Block]:
    text = PAGES[page]
    found = re.finditer(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[2], re.sub(f"(?m)^{m[1]}", "", m[3]), text[: m.start()].count("\n") + 2) for m in found]


FILES = {block.file: block.text for page in PAGES for block in blocks(page) if block.file}


# --- blocks ---


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files of the pages and some films, and registries that forget what a page adds to them."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for seed, name in enumerate(("one", "two", "three", "rainy")):
        with write_frames(tmp_path / "films" / name) as write:
            for frame in moving_texture(6, 20, 24, seed):
                write(frame)
    with write_frames(tmp_path / "scans") as write:
        for frame in moving_texture(2, 8, 8):
            write(frame)
    with write_frames(tmp_path / "rainy.mp4") as write:
        for frame in moving_texture(6, 20, 24):
            write(frame)
    with write_frames(tmp_path / "street.jpg") as write:
        write(moving_texture(1, 20, 24)[0])
    monkeypatch.chdir(tmp_path)
    find_space("tmics")
    for module, registry in (
        (nas.operations, "_factories"),
        (nas.operations, "_sets"),
        (nas.space, "_spaces"),
        (nas.task, "_tasks"),
        (tmics_space.flow.provider, "_providers"),
    ):
        monkeypatch.setattr(module, registry, dict(getattr(module, registry)))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    for module in (nas.config, nas.tune):
        monkeypatch.setattr(module, "load_config", small(module.load_config))
    for module in (nas.cli.running, nas.cli.tuning):
        monkeypatch.setattr(module, "genotype_of", narrow(genotype_of))


@pytest.fixture
def _modules(tmp_path: Path) -> Iterator[None]:
    """Forgets the modules that a page imports from its folder: a later test may write others of their names."""
    yield
    for name, module in [*sys.modules.items()]:
        if tmp_path in Path(getattr(module, "__file__", None) or "").parents:
            del sys.modules[name]


def small(load: Callable[..., Config]) -> Callable[..., Config]:
    """Loads a configuration, and again with few steps of a small network on small films."""

    def loaded(source: str | Path, overrides: Sequence[str] = ()) -> Config:
        config = load(source, overrides)
        config.build_task()
        films = "{{kind: films, films: {{{}}}}}".format
        changes = {"search.steps": "1", "search.epochs": "1"}
        changes |= {f"retrain.stages.{stage}.steps": "1" for stage in config.retrain.stages}
        if config.task["name"] == "derain":
            changes["task.train"] = films("one: films/one, two: films/two, three: films/three")
            changes |= {"task.test": films("rainy: films/rainy"), "task.crop": "16", "task.batch": "1"}
        if config.space == "tmics":
            changes |= {"options.channels": "4", "options.layers": "1"}
            changes |= {"retrain.options.channels": "4"} if "channels" in config.retrain.options else {}
            changes |= {} if "frequency" in config.options else {"options.frequency": "[none]"}
            changes |= {f"options.{cells}": "1" for cells in ("dna_cells", "cna_cells") if config.options.get(cells)}
        return load(source, [*overrides, *(f"{key}={value}" for key, value in changes.items())])

    return loaded


def narrow(load: Callable[[str], Genotype]) -> Callable[[str], Genotype]:
    """Loads a genotype for retraining, with few channels where it is of TMICS."""

    def loaded(target: str) -> Genotype:
        genotype = load(target)
        options = {**genotype.options, "channels": 4} if genotype.space == "tmics" else genotype.options
        return msgspec.structs.replace(genotype, options=options)

    return loaded


@pytest.mark.usefixtures("_modules", "_folder")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page: str) -> None:
    namespace: dict[str, Any] = {"__name__": page}
    printed = ""
    for block in blocks(page):
        where = f"docs/{page}.md:{block.line}"
        if block.kind == "python" and not block.file:
            code = compile("\n" * (block.line - 1) + block.text, where, "exec", dont_inherit=True)
            with redirect_stdout(StringIO()) as output:
                exec(code, namespace)  # noqa: S102 - the page's own code
            printed = output.getvalue()
        elif block.kind == "text":
            assert printed == block.text, where
        elif block.kind == "console":
            for command, shown in commands(block.text):
                check_shown(shown, run(command), f"{where}: {command}")
        elif block.kind == "yaml":
            check_yaml(block.text, where)
        elif block.kind == "toml":
            tomllib.loads(block.text)
    for file in {block.file for block in blocks(page)}:
        if file.startswith("test_"):
            run_tests(file.removesuffix(".py"))


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(command, lines under it) of the `$ nas` lines of a console block."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, shown) for command, shown in found if command.startswith("nas ")]


def run(command: str) -> str:
    """What a command prints; `> file` writes it there."""
    words = shlex.split(command, comments=True)[1:]
    words, sink = (words[:-2], words[-1]) if ">" in words else (words, "")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as output:
        patch.setattr(sys, "argv", ["nas", *words])
        nas.cli.main()
    if sink:
        Path(sink).write_text(output.getvalue(), encoding="utf-8")
    return output.getvalue()


def check_shown(shown: list[str], output: str, where: str) -> None:
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in shown:
        assert line == "..." or " ".join(line.split()) in lines, f"{where}: '{line}' is not in\n{output}"


def check_yaml(text: str, where: str) -> None:
    """A genotype builds its network, a task's section fits the task, other YAML parses."""
    data = parse_yaml(text, where)
    if "choices" in data:
        genotype = Genotype.parse(text, where)
        find_space(genotype.space).derived(genotype)
    elif data.keys() == {"task"}:
        fields = {key: value for key, value in data["task"].items() if key != "name"}
        task = nas.task.find_task(data["task"]["name"])
        task(convert(fields, task.Config, where))


def run_tests(module: str) -> None:
    """The conformance tests that a module of a page inherits."""
    found = [
        value
        for value in vars(importlib.import_module(module)).values()
        if inspect.isclass(value) and issubclass(value, SearchSpaceTests) and value is not SearchSpaceTests
    ]
    assert found
    for tests in found:
        for name in dir(tests):
            if name.startswith("test_"):
                getattr(tests(), name)()


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_a_page_is_used(file: str) -> None:
    texts = [block.text for page in PAGES for block in blocks(page) if block.file != file]
    assert file.startswith("test_") or any(re.search(rf"\b{Path(file).stem}\b", text) for text in texts)


def test_the_tutorial_has_sixty_lines_of_code_at_most() -> None:
    code = "".join(block.text for block in blocks("tutorial") if block.kind in ("python", "yaml", "console"))
    assert len([line for line in code.splitlines() if line.strip()]) <= 60


# --- links ---


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"(?ms)^ *```.*?^ *```$", "", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        assert not path or (DOCS / path).exists(), link
        target = Path(path).stem if path else page
        assert not anchor or anchor in anchors(target), link


# --- completeness ---


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("tmics", find_space("tmics").options()),
        ("tmics", OPERATIONS),
        ("tmics", AUTHORS_NAMES.values()),
        ("tmics", MODES),
        ("tmics", flow_providers()),
        ("tmics", DerainConfig.__struct_fields__[2:]),
        ("configuration", Config.__struct_fields__),
        ("configuration", Level.__struct_fields__),
        ("configuration", RESPONSES),
        ("hypergradients", RESPONSES),
        ("configuration", REGULARIZERS),
        ("classification", [*find_space("darts").options(), *find_space("digits").options()]),
        ("classification", find_space("nas-bench-201").options()),
        ("classification", ClassificationConfig.__struct_fields__),
        ("classification", Augmentation.__struct_fields__),
        ("classification", [kind.__struct_config__.tag for kind in (CIFAR10, CIFAR100, IDX, Folders, Digits)]),
        ("data", layouts()),
        ("data", Layout.__struct_fields__),
        ("data", PRESETS),
        ("data", PROTOCOLS),
        ("data", Films.__struct_fields__),
        ("data", Pairs.__struct_fields__),
        ("data", CameraMotion.__struct_fields__),
        ("genotypes", Provenance.__struct_fields__),
        ("genotypes", importers()),
        ("tuning", KINDS),
    ],
)
def test_a_page_is_complete(page: str, names: Sequence[str]) -> None:
    marked = [*re.findall(r"`([^`\n]+)`", PAGES[page]), *(block.text for block in blocks(page))]
    assert set(names) - set(re.findall(r"[\w-]+", " ".join(marked))) == set()


@pytest.mark.parametrize("name", layouts())
def test_the_paths_shown_are_those_of_the_layouts(name: str) -> None:
    layout = layouts()[name]
    (row,) = re.findall(rf"^\| `{name}` \|[^|]+\| ([\w, ]+) \| `([^`]+)` · `(?:\.\.\./)?([^`]+)`", PAGES["data"], re.M)
    splits, rain, truth = row
    assert splits.split(", ") == list(layout.splits)
    described = next(iter(layout.split(splits.split(", ")[0])))  # of several pairs of paths the first is shown
    for shown, path in ((rain, described.rain), (truth, described.truth)):
        parts = list(zip(reversed(shown.split("/")), reversed(path.split("/")), strict=False))
        suffix = Path(shown).suffix
        assert suffix in layout.suffixes
        for part, pattern in parts:
            assert layout.pattern(pattern).fullmatch(part.removesuffix(suffix)), (part, pattern)
