"""Feed damaged and hostile files to every reader of the project, and list what is neither a value nor a clear error.

A case takes valid files, changes them at random (bits, lines, words, pieces of other files, hostile values), and has a
reader read them in a forked worker with limits: 5 seconds of CPU time and 1 GiB of growth. A reader must return, or
raise a `NASError` of one short printable line. It must write no file outside of its folder, start no program, open no
connection and import no planted module: an audit hook sees these. Pictures, pages and texts made from what was read are
parsed: no script, no handler of events and no control character may be in them.

A case depends on the seed, the reader and its number alone. `--only READER --case NUMBER` repeats one. The exit code is
1 if a case fails.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import gzip
import importlib
import io
import json
import os
import platform
import random
import re
import resource
import select
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock
from xml.etree import ElementTree

import coverage
import msgspec
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from nas.benchmark.table_file import read_rows
from nas.draw.rendering import render
from nas.errors import LONGEST, NASError
from nas.files import dump_yaml, parse_yaml, read_text
from nas.genotype.file import Genotype, find_genotype, shipped, upgrade
from nas.importing.formats import export_genotype, import_genotype
from nas.registry import kind
from nas.report.page import write_report
from nas.report.recorded import read_run
from nas.run import checkpoint
from nas.run.card import missing_sections, read_card
from nas.run.config import load_config
from nas.run.continuing import TUNING
from nas.run.examination import examine, run_folders
from nas.run.folder import CONFIG, GENOTYPE, LAST, METRICS, PREVIOUS, VERSIONS, Run, read_state
from nas.run.images import read_upright, upright_size
from nas.run.loop import DIVERGED
from nas.run.proposals import search
from nas.run.retraining import WEIGHTS
from nas.searchers.journal import Journal
from nas.space.definition import SearchSpace, find_space
from nas.space.operations import OperationSet, changed_channels
from search_spaces.classification.cifar import CIFAR10
from search_spaces.classification.idx import IDX
from tmics_space.data import moving_texture, write_frames
from tmics_space.data.frames import iterate_frames, read_frames
from tmics_space.data.layouts import find_layout

Files = Mapping[str, bytes]
"""Content by name in the folder of a case."""
Documents = Iterable[tuple[str, str]]
"""What was made of a file: its kind (`svg`, `html`, `text`, or `error` for a clear error), and the document."""
SECONDS = 5
"""CPU time of a case."""
GROWTH = 1 << 30
"""Bytes by which the memory of a worker may grow."""
PATIENCE = 120.0
"""Wall time of a case in seconds, after which its worker is killed."""
PLANTED = "planted_by_a_file"
"""The name of the module, and of the file, that payloads would load and write."""
ROOT = Path(__file__).resolve().parents[1]

HOSTILE = (
    *(
        "null",
        "-1",
        "0",
        ".nan",
        "-.inf",
        "1e400",
        "9" * 24,
        "9223372036854775807",
        "999999999",
        "true",
        "''",
        "[]",
        "{}",
    ),
    *(
        "[1, [2, {a: b}]]",
        "{a: 1, a: 2}",
        "&a [*a]",
        "*a",
        "<<: {a: 1}",
        "? [a]\n: b",
        "!!set {a}",
        "!!binary aGk=",
        "|",
    ),
    *(
        "- - - -",
        ">-\n  x",
        "%",
        "@",
        "\t",
        "[" * 600,
        "x" * 5000,
        "-" * 4000 + "1",
        '"\\ud800"',
        '"\\0"',
        "\x00",
        "\ufeff",
    ),
    *("\x1b[31mred\x1b]0;title\x07", "\u202egpj", "é" * 200, "%s%n", "&lt;", "&bogus;", "{{7*7}}", "${7*7}", "none"),
    *(f"!!python/object/apply:os.system ['touch {PLANTED}']", f"!!python/name:{PLANTED}.x", f"{PLANTED}:thing"),
    *(f"__import__('os').system('touch {PLANTED}')", "os:system", f"../../{PLANTED}", f"/tmp/{PLANTED}", "C:\\nul"),
    *('"><script>alert(1)</script>', "<img src=x onerror=alert(1)>", "' onload='alert(1)", "javascript:alert(1)"),
    *("]]><script>1</script>", "</style><script>1</script>", "(a+)+$", "[0-9", "(?P<x>", "__class__", "cell/0<-0"),
)
"""What stands in place of words."""


class Reader(NamedTuple):
    """A reader of files."""

    read: Callable[[Path], Documents | None]
    corpus: Callable[[], list[Files]]
    """Valid inputs."""


class Trap:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {PLANTED}",)


# --- readers ---


TEXTS: Mapping[str, list[Any]] = parse_yaml(Path(__file__).with_suffix(".yaml").read_text(), "fuzz_files.yaml")
"""For each reader the text of its file, or the texts of several files by name."""


def one(name: str, *contents: str | bytes) -> list[Files]:
    """Inputs of one file each."""
    return [{name: c.encode() if isinstance(c, str) else c} for c in contents]


def texts(reader: str, name: str = "file.yaml") -> list[Files]:
    """The inputs of a reader in `TEXTS`, for a file of this name."""
    found = (text if isinstance(text, dict) else {name: text} for text in TEXTS[reader])
    return [{file: text.encode() for file, text in files.items()} for files in found]


def attempts(*reads: Callable[[], object]) -> Documents:
    """Yield the texts that calls return and the clear errors that they raise: none of them stops the others."""
    for read in reads:
        try:
            value = read()
        except NASError as error:
            yield "error", str(error)
        else:
            yield from [("text", value)] if isinstance(value, str) else []


@functools.cache
def prepare() -> None:
    """Load once what cases would load, so that it counts neither as their time nor as the programs they start."""
    for module in ("sklearn.datasets", "torch._dynamo"):
        importlib.import_module(module)
    platform.processor()  # asks a program
    for name in ("operation", "operation set", "task", "search space"):
        kind(name).working()


def operations() -> list[Files]:
    prepare()
    return texts("operations")


def genotypes() -> list[Files]:
    small = find_space("digits").sample(torch.Generator().manual_seed(0))
    golden = ROOT / "tests/golden/genotype-1.yaml"
    found = [small.dump(), *(path.read_text() for path in (golden, *shipped().values()))]
    return [*one("file.yaml", *found), *texts("genotype")]


def read_genotype(folder: Path) -> Documents:
    path = folder / "file.yaml"
    with mock.patch("nas.genotype.file.MIGRATIONS", {0: dict}):  # as if there were files of an older version
        genotype = Genotype.load(path)
        upgrade(path)
    yield "text", genotype.dump()
    yield from attempts(lambda: str(find_genotype(genotype.space)), lambda: str(len(genotype.contested())))
    if genotype.space == "digits":  # others take longer to draw than to read
        yield "html", genotype._repr_html_()
        description = find_space("digits").describe(**genotype.options)
        for format, form in (("svg", "svg"), ("text", "text"), ("dot", "text"), ("mermaid", "text")):
            yield form, render(description, genotype, format)  # type: ignore[call-overload]


def read_configuration(folder: Path) -> Documents:
    config = load_config(folder / "file.yaml")
    yield "text", config.dump()
    data, lines = parse_yaml(read_text(folder / "file.yaml"), "file.yaml"), folder / "overrides.txt"
    overrides = lines.read_bytes().decode("utf-8", "replace").splitlines() if lines.is_file() else ["seed=3"]
    yield from attempts(
        *(functools.partial(overridden, data, [override]) for override in overrides),
        lambda: overridden(data, overrides),
        lambda: str(config.torch_device()),
        lambda: config.build_task(retraining=True),
        lambda: config.search,
        lambda: config.retrain,
    )


def overridden(data: Any, overrides: Sequence[str]) -> str:
    """Do with overrides what commands do; return the text of the configuration."""
    config = load_config(data, overrides)
    for _ in attempts(config.build_task, config.torch_device):
        pass
    return config.dump()


def configurations() -> list[Files]:
    names = ("digits", "demo", "darts", "gdas", "tmics", "ruas", "nas-bench-201", "robust-darts")
    return [*texts("configuration"), *one("file.yaml", *(load_config(name).dump() for name in names))]


SHORT = ("search.steps=2", "search.epochs=1", "task.batch=4", "options.channels=2")
LARGEST = 1000
"""The largest number of a configuration that is built: others may ask for more than a case may use."""


def buildable() -> list[Files]:
    """Configurations of small searches, with many parts."""
    prepare()
    upper = "search.levels.upper"
    parts = (
        (),
        ("search.relaxation=gumbel", "search.wrappers=[{name: partial_channels, k: 2}, edge_normalization]"),
        (f"{upper}.hypergradient.lower={{name: unrolled, steps: 2}}", f"{upper}.mode=train"),
        (f"{upper}.regularizers=[{{name: beta_decay, weight: 0.1, ramp: true}}]", "search.evaluation=plain"),
        ("search.searcher=evolution", "search.score=params", "search.evaluations=2"),
    )
    return one("file.yaml", *(load_config("digits", [*SHORT, *changes]).dump() for changes in parts))


def built(folder: Path) -> None:
    """Take two steps of a search."""
    config = load_config(folder / "file.yaml")
    numbers = [abs(leaf) for leaf in leaves(msgspec.to_builtins(config)) if isinstance(leaf, int | float)]
    if max(numbers) > LARGEST:
        return
    steps = iter((False, True))
    with Run.create(folder / "run", config.dump(), config.seed) as run:
        run.stop = lambda: next(steps, True)
        with suppress(KeyboardInterrupt):
            search(config, run)


def leaves(value: Any) -> Iterator[Any]:
    """Yield what containers hold."""
    if not isinstance(value, dict | list | tuple):
        yield value
        return
    for inner in value.values() if isinstance(value, dict) else value:
        yield from leaves(inner)


def importing(format: str) -> Reader:
    small = {"cells": 3} if format in ("darts", "nni", "mmrazor") else {}  # a network is described for each

    def read(folder: Path) -> Documents:
        text = (folder / "file.txt").read_bytes().decode("utf-8", "replace")
        named = {"name": "b"} if format in ("darts", "tmics") else {}
        for options in (small, {**small, **named}) if named else (small,):
            yield from attempts(lambda options=options: import_genotype(format, text, "file.txt", **options).dump())  # type: ignore[misc]

    def corpus() -> list[Files]:
        found = []
        for path in shipped().values():
            with suppress(NASError):
                found.append(export_genotype(format, Genotype.load(path)))
        return [*texts(f"import {format}", "file.txt"), *one("file.txt", *found)]

    return Reader(read, corpus)


def tables() -> list[Files]:
    csv = "key,accuracy,loss\n" + "".join(f"net{i},{i / 7},{-i}\n" for i in range(9))
    data = {f"net{i}": {"accuracy": i / 7, "loss": -i} for i in range(9)}
    files: list[Files] = [{"file.csv": csv.encode()}, {"file.json": json.dumps(data).encode()}]
    files += [{"file.yaml": dump_yaml(data).encode()}, {"file.csv.gz": gzip.compress(csv.encode())}]
    files += one("file.json", '{"a": {"x": [1, 2]}, "b": {"x": [3, 4]}}', '{"a": {"x": 1}, "b": {"y": true}}', "[1]")
    return [*files, *one("file.yaml", "a|b: 1.5\nc: 2\n", "a: 1\na: 2\n"), *one("file.csv", "k,x,x\na,1,2\n", "k\n")]


def only(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.name.startswith("file"))


def read_table(folder: Path) -> None:
    read_rows(only(folder))


def checkpoints() -> list[Files]:
    buffers = [io.BytesIO() for _ in range(3)]
    network = nn.Linear(3, 2)
    of_run = {"metrics": 0, "files": {f"../{PLANTED}": "x"}, "state": {"step": 1}}
    states = ({"network": network.state_dict(), "list": [1, (2.0, None)]}, {"trap": Trap()}, of_run)
    for buffer, state in zip(buffers, states, strict=True):
        torch.save({"format": 1, "state": state}, buffer)
    for content in ({"format": 99, "state": {}}, {"format": 1}, [1]):
        torch.save(content, buffer := io.BytesIO())
        buffers.append(buffer)
    return one("file.pt", *(buffer.getvalue() for buffer in buffers))


def weights() -> list[Files]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save_weights(path := Path(folder) / "w", nn.Linear(3, 2).state_dict(), {"about": "x"})
        not_finite = safetensors.torch.save({"w": torch.full((2,), torch.nan)})
        return one("file.safetensors", path.read_bytes(), not_finite)


SMALL = ("options.nodes=2", "options.channels=2")


def searched() -> Files:
    """The folder of a small search, as a run writes it."""
    config = load_config("digits", ["search.steps=4", "retrain=null", *SMALL])
    space = find_space("digits")
    sampled = space.sample(torch.Generator().manual_seed(1), **config.options)
    decisions = space.describe(**config.options).decisions
    candidates = {label: list(each.candidates) for label, each in decisions.items() if hasattr(each, "candidates")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        with Run.create(folder, config.dump(), 0) as run:
            run.resume()
            run.save_checkpoint({"kind": "search", "step": 0})
            run.record("origin", search="../other")
            run.record("decisions", 0, decisions=candidates)
            for step in range(4):
                run.record("mixing", step, weights={label: [1 / len(c)] * len(c) for label, c in candidates.items()})
                run.record("edges", step, edges={"cell/2": {"0": [0.5, 0.25], "1": [None, 0.75]}})
                for level in ("lower", "upper"):
                    run.record("train", step + 1, level=level, loss=2.0 - step, gradient=0.1)
                scores = {"accuracy": 0.5, "loss": 2.0, "best_epoch": 1}
                run.record("observer", step + 1, observer="validation", **scores)
                collapse = {"entropy": 1.0, "margin": 0.1, "least_margin": 0.0, "undecided": 1.0, "gradient": 0.1}
                run.record("observer", step + 1, observer="collapse", **collapse)
                run.record("observer", step + 1, observer="mine", norm=1.0)
                run.record("evaluation", step + 1, score=0.5, best=0.5, choices={})
                run.save_genotype(sampled, step + 1)
                run.save_checkpoint({"kind": "search", "step": step + 1})
            run.record("stopping", 4, rule="mine", reason="enough", genotype=4, steps=9)
            run.record("frozen", 4, level="lower", operations=["a"], of=2)
            run.record("backoff", 4, level="lower", factor=0.5)
            parts, best = {"a": {"accuracy": 0.5}}, {"accuracy": "max"}
            run.record("evaluate", accuracy=0.5, statement="of images", parts=parts, best=best)
            run.save_genotype(sampled)
        return files_of(folder)


def retrained() -> Files:
    """The folder of a small retraining, as a run writes it."""
    config = load_config("digits", ["retrain.stages.all.steps=4", "search=null", *SMALL])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        with Run.create(folder, config.dump(), 0) as run:
            run.resume()
            for step in (0, 2, 4):
                run.record("train", step, loss=2.0 - step)
                run.save_checkpoint({"kind": "retrain", "step": step})
            run.record("evaluate", accuracy=0.5)
        checkpoint.save_weights(folder / WEIGHTS, nn.Linear(3, 2).state_dict(), {})
        return files_of(folder)


def files_of(folder: Path) -> Files:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def damaged(whole: Files) -> Iterator[Files]:
    """The folder of a run with each damage that it may have, and as older versions wrote it."""
    content = torch.load(io.BytesIO(whole[LAST]), weights_only=True)["state"]
    texts = {CONFIG: whole[CONFIG].decode(), VERSIONS: whole[VERSIONS].decode()}

    def saved(**changes: object) -> bytes:
        torch.save({"format": 1, "state": {**content, **changes}}, buffer := io.BytesIO())
        return buffer.getvalue()

    def diverged(step: object) -> bytes:
        torch.save({"format": 1, "state": {"step": step, "message": "\x1b[31m"}}, buffer := io.BytesIO())
        return buffer.getvalue()

    cut = {name: data[:-7] for name, data in whole.items()}
    gone: dict[str, bytes | None] = dict.fromkeys(whole)
    older = re.sub(r"(?m)^(threads|kernel|ranks|modules):.*\n", "", texts[VERSIONS]).encode()
    other = re.sub(r"(?m)^torch:.*", "torch: '0.1'", texts[VERSIONS]).replace("modules: []", "modules: [a.b]").encode()
    changed = texts[CONFIG].replace("seed: 0", "seed: 9").encode()
    none = saved(files={})
    step = content["state"]["step"]
    changes: list[Mapping[str, bytes | None]] = [
        *({name: None} for name in whole),
        *({name: cut[name]} for name in whole),
        *({name: whole[name] + b"\n# x: 1\n"} for name in whole),
        *({name: b""} for name in whole),
        *({LAST: last, PREVIOUS: previous} for last in (None, cut[LAST]) for previous in (None, cut[PREVIOUS])),
        {**gone, CONFIG: whole[CONFIG], VERSIONS: whole[VERSIONS], METRICS: b""},
        {**gone, CONFIG: whole[CONFIG], VERSIONS: whole[VERSIONS]},
        {**gone, CONFIG: whole[CONFIG], METRICS: b""},
        {**gone, VERSIONS: whole[VERSIONS]},
        *({CONFIG: text, LAST: last} for text in (changed, b"space: [", b"[]", None) for last in (none, whole[LAST])),
        *({VERSIONS: text, LAST: last} for text in (older, other, b"a: b") for last in (none, whole[LAST])),
        {METRICS: b"x" + whole[METRICS][1:]},
        {METRICS: whole[METRICS][:9], PREVIOUS: None},
        {METRICS: whole[METRICS] + b'{"kind"\n{"kind": 1}\n'},
        *({METRICS: whole[METRICS] + line + b"\n", LAST: whole[LAST]} for line in STRANGE),
        {"checkpoints/.last.pt.0123abcd": b"x", ".config.yaml.0123abcd": b""},
        *({DIVERGED: data} for data in (diverged(step), diverged(99), b"x")),
        {GENOTYPE: b"schema: 9", LAST: none},
        {GENOTYPE: b"schema: 9", LAST: saved(files={GENOTYPE: "x"})},
        {WEIGHTS: b"x", LAST: none},
        *({LAST: saved(**{name: value})} for name, value in ALTERED),
        {LAST: saved(metrics="x"), PREVIOUS: None},
        {LAST: saved(checksum=7), PREVIOUS: None},
        {LAST: _older(content)},
        {".lock": b"another host, process 1"},
        {"given.yaml": whole[CONFIG]},
        {"given.yaml": changed},
        {"given.yaml": b"space: digits\nother: {a: 1}\n"},
        {"given.yaml": b"[1]"},
    ]
    for each in ({}, *changes):
        yield {name: data for name, data in {**whole, **each}.items() if data is not None}
    tuning = b"trials: 3\nstorage: sqlite:///a.db\nstudy: s\nprune: false\ngenotypes: [a, b]\n"
    for place in ("trial-1/net", "evaluations/1", "supernet", "trial-x/net"):
        inner = {f"{place}/{name}": data for name, data in whole.items()}
        outer = {VERSIONS: other, GENOTYPE: b"x"}
        yield from (inner, {**inner, TUNING: tuning}, {**inner, TUNING: tuning, GENOTYPE: b"x"})
        yield from ({**inner, **outer}, {**inner, **outer, TUNING: b"trials: x"})


def _older(content: Mapping[str, Any]) -> bytes:
    """A checkpoint as first versions wrote it, without a checksum and copies of files."""
    state = {"metrics": content["metrics"], "state": content["state"]}
    torch.save({"format": 1, "state": state}, buffer := io.BytesIO())
    return buffer.getvalue()


STRANGE = (
    b'{"kind": "other", "step": 4}',
    b'{"kind": "stopped", "step": 4, "steps": 9}',
    b'{"kind": "observer", "step": 4, "observer": "mine", "norm": "x"}',
    b'{"kind": "observer", "step": 4, "observer": "mine", "norm": null}',
    b'{"kind": "mixing", "step": 4, "weights": {"other": [null]}}',
    b'{"kind": "train", "step": "4"}',
    b'{"kind": "origin", "search": "."}',
    b"[1]",
)
"""Records that are of another form than those of a run, or of another kind."""
ALTERED: tuple[tuple[str, object], ...] = (
    ("files", [1]),
    ("files", {f"../{PLANTED}": "x"}),
    ("files", {1: 2}),
    ("files", {CONFIG: 3}),
    ("files", {GENOTYPE: "x"}),
    ("metrics", -1),
    ("metrics", 1 << 60),
    ("metrics", True),
    ("state", 1),
    ("state", {}),
    ("state", {"kind": "other", "step": "x"}),
    ("state", {"kind": ["search"], "step": -1}),
)
"""What fields of a checkpoint may be that the package did not write."""


@functools.cache
def runs() -> list[Files]:
    """The folders of a small search and of a small retraining, whole and damaged."""
    prepare()
    return [*damaged(searched()), *damaged(retrained())]


def read_report(folder: Path) -> Documents:
    for path in run_folders(folder):
        yield from attempts(lambda path=path: examine(path), lambda path=path: read_state(path))  # type: ignore[misc]
        run = read_run(path)
        yield "html", write_report(path, path / "report.html").path.read_text()
        for genotype in run.genotypes.values():
            yield "text", genotype.dump()


def examined(folder: Path) -> Documents:
    """Examine and resume the runs in a folder, as they are and after repairs; begin new ones."""
    found = {*run_folders(folder), *(path.parent for path in folder.rglob(CONFIG))}
    for path in sorted(found):
        calls = (continued, repaired, lambda path: Run.create(path, "seed: 1", 1).close())
        yield from attempts(*(functools.partial(call, path) for call in calls))
    yield from attempts(lambda: run_folders(folder / METRICS), lambda: Run.create(folder / CONFIG, "", 0))


def repaired(folder: Path) -> None:
    repairs = [found.repair for found in examine(folder).findings if found.repair is not None]
    for repair in repairs:
        repair()
    if repairs:
        continued(folder)


def continued(folder: Path) -> None:
    """Examine a run, then resume it: it must resume if nothing hinders, and a command must say how."""
    given, found = folder / "given.yaml", examine(folder)
    hinders = [each for each in found.findings if each.hinders]
    if shlex.split(found.command)[:1] != ([] if hinders or found.finished else ["nas"]):
        raise AssertionError(f"the command is {found.command!r}")
    try:
        with Run.open(folder, read_text(given) if given.is_file() else None) as run:
            examine(folder)
            for _ in attempts(lambda: Run.open(folder)):  # another process uses it
                pass
            state = run.resume()
            run.record("mine", 4, value=1.0)
            run.save_checkpoint(state or {"kind": "search", "step": 0})
    except NASError as error:
        if not hinders and not given.is_file():
            raise AssertionError(f"nothing hinders, but {error}") from error
        raise


def pictures() -> list[Files]:
    found = []
    for format in ("png", "jpeg", "webp", "gif", "tiff", "bmp"):
        buffer = io.BytesIO()
        Image.effect_noise((24, 16), 60).convert("RGB").save(buffer, format)
        found.append({f"file.{format}": buffer.getvalue()})
    Image.new("I;16", (8, 8)).save(deep := io.BytesIO(), "png")
    return [
        *found,
        {"file.png": deep.getvalue()},
        *one("file.ppm", b"P6 2 1 65535 " + bytes(12), b"P6 2 1 255 " + bytes(6)),
    ]


def numbered() -> list[Files]:
    """Folders of frames: with a gap, of two sizes, of two numberings, without frames; one image; films."""
    frames = []
    for size in ((8, 8), (8, 8), (9, 8)):
        Image.effect_noise(size, 60).convert("RGB").save(buffer := io.BytesIO(), "png")
        frames.append(buffer.getvalue())
    a, b, c = frames
    names = (("x", "y"), ("1", "01"), ("a1", "b1"))
    others = [{f"clip/{one}.png": a, f"clip/{two}.png": b} for one, two in names]
    others += [{"clip/1.txt": b"x"}, {"other": b"x"}, {"clip.png": a}, {"clip.txt": b"x"}, {"clip.mkv": b"x"}]
    others += [{f"clip{Path(name).suffix}": film for name, film in files.items()} for files in videos()]
    return [{"clip/1.png": a, "clip/2.png": b, "clip/9.png": a}, {"clip/a01.png": a, "clip/a02.png": c}, *others]


def read_folder(folder: Path) -> Documents:
    source = next((path for path in sorted(folder.iterdir()) if path.name.startswith("clip")), folder / "clip")
    ranges = ((0, None), (1, 3), (2, 1), (90, None), (0, 4, 2))
    return attempts(
        *(functools.partial(read_frames, source, *each) for each in ranges), lambda: list(iterate_frames(source))
    )


def read_picture(folder: Path) -> None:
    upright_size(only(folder))
    read_upright(only(folder))


def videos() -> list[Files]:
    found = []
    for suffix in ("mp4", "mkv", "avi"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"file.{suffix}"
            with write_frames(path) as write:
                for frame in moving_texture(4, 32, 32):
                    write(frame)
            found.append({path.name: path.read_bytes()})
    return found


def read_video(folder: Path) -> None:
    read_frames(only(folder), 0, 4)


def read_cifar(folder: Path) -> None:
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    CIFAR10(str(folder)).load()


def idx() -> list[Files]:
    images = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 8]) + bytes(2 * 64)
    return [{"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 2])}]


def cifar() -> list[Files]:
    batches = {f"data_batch_{number}.bin": bytes(2 * 3073) for number in range(1, 6)} | {"test_batch.bin": bytes(3073)}
    return [batches, {"data_batch_1": b"x"}, {"data_batch_1.bin": b"\x0b" + bytes(3072)}]


def read_layout(folder: Path) -> None:
    find_layout(find_layout(folder / "file.yaml")).split("test")


def read_operations(folder: Path) -> Documents:
    """Read a set of operations from a file, and from what the file holds, as the option of a space does."""
    path = folder / "file.yaml"
    value = parse_yaml(read_text(path), "file.yaml")
    return attempts(
        lambda: used(OperationSet.load(path)), lambda: used(OperationSet.of(value)), lambda: used(OperationSet(value))
    )


def used(found: OperationSet) -> str:
    """Do with a set what spaces and configurations do; return its names."""
    names = list(found)
    same = OperationSet.of(dict(found.only(*names[:1]) | found.without(*names[:1])))
    for _ in attempts(lambda: found.bind(4), lambda: found.bind(4, stride=2), lambda: found["a"], same.plain):
        pass
    for change in (nullcontext(), changed_channels(lambda channels: channels // 2)):
        with change:
            SearchSpace("fuzzed", lambda choose, /: choose("operation", found.bind(4))).describe()
    if OperationSet.of(plain := found.plain()).plain() != plain:
        raise AssertionError("a set differs from what its plain data makes")
    OperationSet({**found, "mine": nn.Identity}).plain()
    return repr(found)


READERS: dict[str, Reader] = {
    "genotype": Reader(read_genotype, genotypes),
    "configuration": Reader(read_configuration, configurations),
    "two steps": Reader(built, buildable),
    **{f"import {format}": importing(format) for format in kind("importer").names()},
    "layout": Reader(read_layout, lambda: texts("layout")),
    "operations": Reader(read_operations, operations),
    "table": Reader(read_table, tables),
    "card": Reader(
        # its text is Markdown: printed escaped, shown by nothing else
        lambda folder: attempts(lambda: missing_sections(read_card(folder).text)),
        lambda: [
            *texts("card", "card.md"),
            *one("card.md", (kind("model").find("tmics-compact")() / "card.md").read_bytes()),
        ],
    ),
    "journal": Reader(lambda folder: Journal(folder / "file.log") and None, lambda: texts("journal", "file.log")),
    "checkpoint": Reader(lambda folder: checkpoint.load(folder / "file.pt") and None, checkpoints),
    "weights": Reader(lambda folder: checkpoint.load_weights(folder / "file.safetensors") and None, weights),
    "report": Reader(read_report, runs),
    "run": Reader(examined, runs),
    "picture": Reader(read_picture, pictures),
    "video": Reader(read_video, videos),
    "frames": Reader(read_folder, numbered),
    "idx": Reader(lambda folder: IDX(str(folder)).load() and None, idx),
    "cifar": Reader(read_cifar, cifar),
}


FILES: Mapping[str, tuple[str, ...]] = {
    "genotype": ("nas/genotype/file.py",),
    "configuration": ("nas/run/config.py", "nas/run/config_files.py"),
    **{
        f"import {format}": ("nas/importing/python_text.py", "search_spaces/importers/*.py", "tmics_space/published.py")
        for format in kind("importer").names()
    },
    "layout": ("tmics_space/data/layouts.py",),
    "operations": ("nas/space/operations.py",),
    "table": ("nas/benchmark/table_file.py",),
    "card": ("nas/run/card.py",),
    "journal": ("nas/searchers/journal.py",),
    "checkpoint": ("nas/run/checkpoint.py",),
    "weights": ("nas/run/checkpoint.py",),
    "report": ("nas/report/recorded.py", "nas/run/record_kinds.py"),
    "run": ("nas/run/examination.py", "nas/run/folder.py", "nas/run/continuing.py"),
    "picture": ("nas/run/images.py",),
    "video": ("tmics_space/data/video.py",),
    "frames": ("tmics_space/data/frames.py",),
    "idx": ("search_spaces/classification/idx.py",),
    "cifar": ("search_spaces/classification/cifar.py",),
}
"""The files of each reader, for `--coverage`."""


# --- changes ---


def changed(files: Files, corpus: Sequence[Files], others: Sequence[bytes], pick: random.Random) -> dict[str, bytes]:
    """The files with one or more of them changed; sometimes one is missing, or is that of another input."""
    found = dict(files)
    for _ in range(pick.choice([1, 1, 1, 2])):
        name = pick.choice(list(files))
        if len(files) > 1 and (chance := pick.random()) < 0.15:
            found.pop(name, None)
            if chance > 0.05 and (foreign := pick.choice(corpus).get(pick.choice([name, pick.choice(list(files))]))):
                found[name] = foreign
            continue
        data = found.get(name, b"")
        for _ in range(pick.choice([1, 1, 2, 3, 8])):
            text = _text(data) if pick.random() < 0.8 else None
            data = _changed_bytes(data, others, pick) if text is None else _changed_text(text, pick)
        if name.endswith(".jsonl") and pick.random() < 0.7 and (text := _text(data)) is not None:
            data = text.replace("\x1b", "\\u001b").replace("\x07", "\\u0007").encode("utf-8", "surrogatepass")
        found[name] = data
    return found


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _changed_text(text: str, pick: random.Random) -> bytes:
    words = list(re.finditer(r"[^\s:,\[\]{}()\"'|~+]+", text))
    lines = text.split("\n")
    at = pick.randrange(len(lines))
    match pick.randrange(8) if words else 7:
        case 0 | 1 | 2:
            word, value = pick.choice(words), pick.choice(HOSTILE)
            value = json.dumps(value) if pick.random() < 0.4 else value
            text = text[: word.start()] + value + text[word.end() :]
        case 3:
            a, b = sorted(pick.choices(words, k=2), key=lambda word: word.start())
            if a != b:
                text = text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]
        case 4:
            lines.insert(at, lines[pick.randrange(len(lines))])
            text = "\n".join(lines)
        case 5:
            del lines[at]
            text = "\n".join(lines)
        case 6:
            lines[at] = pick.choice(["  ", "- ", "? ", "\t", "#", "'"]) + lines[at]
            text = "\n".join(lines)
        case _:
            place = pick.randint(0, len(text))
            text = text[:place] + pick.choice([*HOSTILE, "\n", ":", "[", "}"]) + text[place:]
    return text.encode("utf-8", "surrogatepass")


def _changed_bytes(data: bytes, others: Sequence[bytes], pick: random.Random) -> bytes:
    found = bytearray(data)
    place = pick.randint(0, len(found))
    head = pick.randint(0, min(len(found), 64))
    match pick.randrange(7):
        case 0 if found:
            found[min(place, len(found) - 1)] ^= 1 << pick.randrange(8)
        case 1 if found:
            found[min(head, len(found) - 1)] = pick.choice([0, 1, 127, 128, 255])
        case 2:
            return bytes(found[:place])
        case 3:
            del found[place : place + pick.choice([1, 4, 64])]
        case 4:
            found[place:place] = pick.choice([b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(64), b"PK\x03\x04"])
        case 5:
            other = pick.choice(others)
            start = pick.randint(0, len(other))
            found[place:place] = other[start : start + 256]
        case _:
            found[head : head + 4] = pick.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
    return bytes(found)


def case_files(corpus: Sequence[Files], name: str, seed: int, number: int) -> dict[str, bytes]:
    """The files of a case; the first cases are the corpus as it is."""
    if number < len(corpus):
        return dict(corpus[number])
    pick = random.Random(f"{seed}/{name}/{number}")
    others = [data for files in corpus for data in files.values()]
    return changed(pick.choice(corpus), corpus, others, pick)


# --- what is checked ---


class _Elements(HTMLParser):
    """What a page could run: scripts beside its own, handlers of events, frames, links to scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.found = 0, list[str]()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script" and ("type", "application/json") not in attributes
        self.found += [tag] * (tag in ("iframe", "object", "embed", "foreignobject"))
        self.found += [f"{tag} {name}" for name, value in attributes if runs_code(name, value or "")]


def runs_code(attribute: str, value: str) -> bool:
    return attribute.lower().startswith("on") or value.strip().lower().startswith("javascript:")


def unsafe(kind: str, document: str) -> str:
    """What a document could do that it must not; empty if nothing."""
    if kind == "error":
        clear = len(document) <= 2 * LONGEST and document.isprintable()
        return "" if clear else f"message of {len(document)} characters: {document[:100]!r}"
    if any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in document):
        return "a control character"
    if kind == "svg":
        for element in ElementTree.fromstring(document).iter():
            if element.tag.rpartition("}")[2] in ("script", "foreignObject", "iframe"):
                return f"an element {element.tag}"
            if names := [name for name, value in element.attrib.items() if runs_code(name.rpartition("}")[2], value)]:
                return f"an attribute {names[0]}"
    if kind == "html":
        elements = _Elements()
        elements.feed(document)
        if elements.found or elements.scripts > 1:  # one is the page's own
            return f"{elements.scripts} scripts, {', '.join(elements.found)}"
    return ""


_forbidden: list[str] = []
_folder = [""]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate")
_PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
_CONNECTIONS = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "webbrowser.open")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what a reader must not do, while a case is read."""
    if not _folder[0]:
        return
    if event in _PROGRAMS or event in _CONNECTIONS:
        _forbidden.append(f"{event} {arguments[:1]}")
    elif event == "import" and arguments[0].startswith(PLANTED):
        _forbidden.append(f"imports {arguments[0]}")
    elif (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES) or event in _PATHS:
        for path in arguments[: 1 if event == "open" else 2]:
            if isinstance(path, str | bytes) and not _inside(os.fsdecode(path)):
                _forbidden.append(f"{event} {os.fsdecode(path)}")


def _inside(path: str) -> bool:
    return path == os.devnull or os.path.realpath(path).startswith((_folder[0], _CACHE))


_CACHE = os.path.join(tempfile.gettempdir(), "torchinductor_")
"""How the folder begins that torch makes for itself when a network is counted."""


def run_case(reader: Reader, files: Files, folder: Path) -> str:
    """Read the files of a case, in an empty folder; returns what is wrong, or an empty string."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / f"{PLANTED}.py").write_text("x = 1\n")
    os.chdir(folder)
    _forbidden.clear()
    _folder[0] = os.path.realpath(folder)
    wrong = ""
    try:
        for form, document in reader.read(folder) or ():
            wrong = wrong or ((what := unsafe(form, document)) and f"{form}: {what}")
    except NASError as error:
        wrong = unsafe("error", str(error))
    except Exception as error:  # noqa: BLE001 - all of them are failures
        place = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:200]!r}"
    finally:
        _folder[0] = ""
    if _forbidden:
        return f"forbidden: {_forbidden[0]}"
    return wrong or ("a payload ran" if (folder / PLANTED).exists() else "")


# --- workers ---


class Failure(NamedTuple):
    """A case that failed."""

    reader: str
    seed: int
    case: int
    wrong: str


def run_reader(
    name: str, reader: Reader, seed: int, numbers: range, tracer: coverage.Coverage | None = None
) -> Iterator[Failure]:
    """Run cases in forked workers, one after another; a worker that dies is a failure of its case.

    Workers save what they ran if there is a tracer.
    """
    corpus = reader.corpus()
    at = numbers.start
    while at < numbers.stop:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _work(name, reader, corpus, seed, range(at, min(numbers.stop, at + 400)), writing, tracer)
        os.close(writing)
        at, hung = min(numbers.stop, at + 400), False
        begun = -1
        with os.fdopen(reading, "rb") as pipe:
            while not hung:
                if not select.select([pipe], [], [], PATIENCE)[0]:
                    os.kill(child, signal.SIGKILL)
                    hung = True
                line = pipe.readline()
                if not line:
                    break
                begun, wrong = json.loads(line)
                if wrong:
                    yield Failure(name, seed, begun, wrong)
        _, status = os.waitpid(child, 0)
        if hung or os.WIFSIGNALED(status) or os.WEXITSTATUS(status):
            ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
            reason = {"SIGXCPU": f"more than {SECONDS} s of CPU time"}.get(ended, ended)
            yield Failure(name, seed, begun, f"no answer in {PATIENCE:g} s" if hung else reason)
            at = begun + 1


def _work(
    name: str,
    reader: Reader,
    corpus: Sequence[Files],
    seed: int,
    numbers: range,
    pipe: int,
    tracer: coverage.Coverage | None,
) -> None:
    """Run cases in this process, which ends here. Before each its number is written, after it what is wrong."""
    try:
        sys.dont_write_bytecode = True
        faulthandler.disable()
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)  # noqa: TID251 - several would wait for one another within the limit of CPU time
        sys.addaudithook(_audit)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if tracer is not None:
            tracer.start()
        for number in numbers:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            spent = int(usage.ru_utime + usage.ru_stime)
            resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS + 1, resource.RLIM_INFINITY))
            os.write(pipe, f"{json.dumps([number, ''])}\n".encode())
            with tempfile.TemporaryDirectory() as folder:
                inner = Path(folder) / "a" / "b"
                inner.mkdir(parents=True)
                wrong = run_case(reader, case_files(corpus, name, seed, number), inner)
                os.chdir("/")
            if wrong:
                os.write(pipe, f"{json.dumps([number, wrong])}\n".encode())
        if tracer is not None:
            tracer.stop()
            tracer.save()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - nothing may return into the copy of the parent
        os.write(pipe, f"{json.dumps([-1, traceback.format_exc()])}\n".encode())
        os._exit(1)


def tracer_of(folder: Path, chosen: Sequence[str]) -> coverage.Coverage:
    """Measures the lines and branches of the files of some readers."""
    files = [str(ROOT / file) for name in chosen for file in FILES.get(name, ())]
    return coverage.Coverage(f"{folder}/data", data_suffix=True, branch=True, config_file=False, include=files)


def branches(folder: Path) -> Iterator[tuple[str, int, int, str]]:
    """Yield each measured file, the numbers of branches that were taken and of all, and the lines of the others.

    Functions that no case entered, such as those that write, are left out.
    """
    whole = coverage.Coverage(f"{folder}/data", branch=True, config_file=False)
    whole.combine([str(folder)])
    whole.json_report(outfile=f"{folder}/whole.json")
    for file, found in json.loads((folder / "whole.json").read_text())["files"].items():
        entered = [each for each in found["functions"].values() if each["summary"]["covered_lines"]]
        some, every = (sum(each["summary"][name] for each in entered) for name in ("covered_branches", "num_branches"))
        others = sorted(line for each in entered for line, _ in each["missing_branches"])
        yield os.path.relpath(file, ROOT), some, every, " ".join(map(str, others))


def alike(failure: Failure) -> str:
    """What failures of one cause have in common."""
    return re.sub(r"\d+|'[^']*'", "", failure.wrong)


def replay(name: str, seed: int, number: int) -> None:
    """Run one case in this process, with its traceback."""
    files = case_files(READERS[name].corpus(), name, seed, number)
    with tempfile.TemporaryDirectory() as folder:
        for file, data in files.items():
            (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / file).write_bytes(data)
            if len(data) < 3000:
                print(f"{file}: {data!r}")
        for form, document in READERS[name].read(Path(folder)) or ():
            print(form, unsafe(form, document) or "safe")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="cases of each reader (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cases (default 0)")
    parser.add_argument("--only", action="append", choices=READERS, metavar="READER", help=", ".join(READERS))
    parser.add_argument("--coverage", action="store_true", help="print which branches of the readers the cases took")
    parser.add_argument("--case", type=int, help="run this case of --only alone, with its traceback")
    arguments = parser.parse_args()
    chosen = arguments.only or list(READERS)
    if arguments.case is not None:
        replay(chosen[0], arguments.seed, arguments.case)
        return 0
    console, table, failures = Console(width=118), Table("reader", "cases", "failures", "CPU seconds"), list[Failure]()
    measured = Path(tempfile.mkdtemp())
    tracer = tracer_of(measured, chosen) if arguments.coverage else None
    for name in chosen:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = list(run_reader(name, READERS[name], arguments.seed, range(arguments.count), tracer))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        failures += found
        table.add_row(name, str(arguments.count), str(len(found)), f"{spent:.0f}")
        kinds = Counter(map(alike, found))
        for failure in {alike(each): each for each in reversed(found)}.values():
            where = f"{name}, seed {failure.seed}, case {failure.case} ({kinds[alike(failure)]} like it)"
            console.print(f"{where}: {failure.wrong}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"seed {arguments.seed}")
    console.print(table)
    if tracer is not None:
        taken = Table("file", "branches taken", "of", "share", "lines of the others")
        for file, some, every, lines in branches(measured):
            taken.add_row(file, str(some), str(every), f"{some / max(every, 1):.0%}", lines)
        console.print(taken)
    shutil.rmtree(measured)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
