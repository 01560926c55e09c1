"""What the pages of docs/ say holds: their code and commands run, their files parse, their links lead somewhere.

The blocks of a page are taken in order, in one folder. One that begins with `# NAME.py`, `.yaml` or `.md` is a file,
saved there with those of all pages; any other Python block is run, and a text block behind it is what it prints. In
console blocks every `$ nas` line is run, its configuration checked as it stands and then made small; lines under it are
lines that it prints, in order, `...` others between them.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import nas.cli
import nas.cli.tuning
import nas.front.benchmarking
import nas.front.correlating
import nas.front.running
import nas.run.config
import nas.run.task
import nas.space.operations
import nas.space.primitives
import nas.tune.tuning
from nas.files import convert, parse_yaml
from nas.front.targets import genotype_of
from nas.genotype.file import Genotype, Provenance, shipped
from nas.multilevel.level import Level
from nas.registry import kind, kinds
from nas.run.config import Config, RetrainConfig, SearchConfig, SearchStage, ValidationConfig
from nas.run.task import PYTHON
from nas.space.definition import find_space
from nas.testing import SearchSpaceTests
from nas.tune.tuning import KINDS
from quadratic import METHODS
from search_spaces.classification.augment import Augmentation
from search_spaces.classification.cifar import CIFAR10, CIFAR100
from search_spaces.classification.fashion import FashionMNIST
from search_spaces.classification.folders import Folders
from search_spaces.classification.handwriting import Digits
from search_spaces.classification.idx import IDX
from search_spaces.classification.task import ClassificationConfig
from tmics_space.averaging import AVERAGINGS
from tmics_space.compact import COMPACT
from tmics_space.data import LAYOUTS, RAIN_PRESETS, CameraMotion, moving_texture, write_frames
from tmics_space.data.layouts import Layout
from tmics_space.data.rainfall import RainMix
from tmics_space.data.sources import Films, Pairs
from tmics_space.flow import FLOW_PROVIDERS
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
        name = re.match(r"(?:---\n)?# (\S+\.(?:py|yaml|md))\n", self.text)
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
    for seed, name in enumerate(("one", "two", "three")):
        with write_frames(tmp_path / "films" / name) as write:
            for frame in moving_texture(6, 20, 24, seed):
                write(frame)
    for name, above in (("clean", 0), ("derained", 2), ("peer", 4), ("rainy", 8)):
        with write_frames(tmp_path / "films" / name) as write:
            for frame in moving_texture(6, 20, 24, 3):
                write((frame.int() + above).clamp(max=255).byte())
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
        *((each, "_registered") for each in kinds.values()),
        *((each, "_origins") for each in kinds.values()),
        (nas.run.task.TASKS, "_registered"),
    ):
        monkeypatch.setattr(module, registry, dict(getattr(module, registry)))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(nas.front.benchmarking, "compare", short(nas.front.benchmarking.compare))
    monkeypatch.setattr(nas.front.correlating, "correlate_scores", sparse(nas.front.correlating.correlate_scores))
    for module in (nas.run.config, nas.tune.tuning):
        monkeypatch.setattr(module, "load_config", small(module.load_config))
    for module in (nas.front.running, nas.cli.tuning):
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

    def loaded(source: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
        if isinstance(overrides, Mapping):
            overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        config = load(source, overrides)
        if config.task["name"] != PYTHON:
            config.build_task()
        films = "{{kind: films, films: {{{}}}}}".format
        stages = config.search.stages.values() if config.search_section else ()
        epochs = str(sum(stage.epochs for stage in stages) or 1)
        changes = {"search.steps": epochs, "search.epochs": epochs} if config.search_section else {}
        changes |= {f"retrain.stages.{stage}.steps": "1" for stage in config.retrain.stages}
        if config.task["name"] == "derain":
            changes["task.train"] = films("one: films/one, two: films/two, three: films/three")
            changes |= {"task.validation": "null"} if "validation" in config.task else {}
            changes |= {"task.test": films("rainy: films/rainy"), "task.crop": "16", "task.batch": "1"}
        if config.space == "tmics":
            changes |= {"options.channels": "4", "options.layers": "1"}
            changes |= {"retrain.options.channels": "4"} if "channels" in config.retrain.options else {}
            changes |= {} if "frequency" in config.options else {"options.frequency": "[none]"}
            changes |= {f"options.{cells}": "1" for cells in ("dna_cells", "cna_cells") if config.options.get(cells)}
        return load(source, [*overrides, *(f"{key}={value}" for key, value in changes.items())])

    return loaded


def short(compare: Callable[..., Any]) -> Callable[..., Any]:
    """Compares searchers with few seeds."""

    def compared(*arguments: Any, seeds: int, **options: Any) -> Any:
        return compare(*arguments, seeds=min(seeds, 5), **options)

    return compared


def sparse(correlate: Callable[..., Any]) -> Callable[..., Any]:
    """Correlates few scores of few networks: only one of those that are computed for a whole table."""

    def correlated(table: Any, column: str, scores: dict[str, Any], batch: Any, **options: Any) -> Any:
        kept = {name: scores[name] for name in scores if name not in ("flops", "grad_norm", "synflow")}
        return correlate(table, column, kept, batch, **{**options, "sample": 2})

    return correlated


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
        try:
            nas.cli.main()
        except SystemExit as ended:
            pytest.fail(f"{command}: exit code {ended.code}\n{output.getvalue()}")
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
        task = nas.run.task.TASKS.find(data["task"]["name"])
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


def test_an_example_of_each_kind_is_short() -> None:
    examples = [block for block in blocks("extending") if "nas.register(" in block.text or ".register(" in block.text]
    names = [name for block in examples for name in re.findall(r'register\("([a-z ]+)", ', block.text)]
    assert {*names, "operation set"} >= {name for name, each in kinds.items() if each.group.startswith("nas.")}
    for block in examples:
        for example in block.text.split("\n\n\n"):
            lines = [line for line in example.splitlines() if line.strip()]
            assert len(lines) < 15, f"docs/extending.md:{block.line}"


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


def ours(name: str) -> list[str]:
    """The names of a kind that this project offers, without those that other tests registered."""
    packages = ("nas.", "search_spaces.", "tmics_space.")
    return [known for known, origin in kind(name).names().items() if origin.startswith(packages)]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("tmics", find_space("tmics").options()),
        ("tmics", OPERATIONS),
        ("tmics", COMPACT),
        ("tmics", AUTHORS_NAMES.values()),
        ("tmics", ours(AVERAGINGS.name)),
        ("tmics", ours(FLOW_PROVIDERS.name)),
        ("tmics", DerainConfig.__struct_fields__[2:]),
        ("configuration", Config.__struct_encode_fields__),
        ("configuration", SearchConfig.__struct_fields__),
        ("configuration", SearchStage.__struct_fields__),
        ("configuration", RetrainConfig.__struct_fields__),
        ("configuration", ValidationConfig.__struct_fields__),
        ("configuration", [*ours("derivation"), *ours("relaxation"), *ours("optimizer")]),
        ("configuration", Level.__struct_fields__),
        ("configuration", METHODS),
        ("hypergradients", METHODS),
        ("configuration", ours("regularizer")),
        ("relaxations", ours("wrapper")),
        ("classification", [*find_space("darts").options(), *find_space("digits").options()]),
        ("classification", find_space("nas-bench-201").options()),
        ("classification", ClassificationConfig.__struct_fields__),
        ("classification", Augmentation.__struct_fields__),
        (
            "classification",
            [kind.__struct_config__.tag for kind in (CIFAR10, CIFAR100, IDX, FashionMNIST, Folders, Digits)],
        ),
        ("data", ours(LAYOUTS.name)),
        ("data", Layout.__struct_fields__),
        ("data", ours(RAIN_PRESETS.name)),
        ("data", PROTOCOLS),
        ("data", Films.__struct_fields__),
        ("data", Pairs.__struct_fields__),
        ("data", CameraMotion.__struct_fields__),
        ("data", RainMix.__struct_fields__),
        ("genotypes", Provenance.__struct_fields__),
        ("genotypes", ours("importer")),
        ("genotypes", shipped()),
        ("tuning", KINDS),
    ],
)
def test_a_page_is_complete(page: str, names: Sequence[str]) -> None:
    marked = [*re.findall(r"`([^`\n]+)`", PAGES[page]), *(block.text for block in blocks(page))]
    assert set(names) - set(re.findall(r"[\w-]+", " ".join(marked))) == set()


@pytest.mark.parametrize("name", LAYOUTS.names())
def test_the_paths_shown_are_those_of_the_layouts(name: str) -> None:
    layout = LAYOUTS.find(name)
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
