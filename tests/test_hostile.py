"""Every reader of the project with files that are damaged, huge, or written to do harm.

A reader gives a value, or raises a `NASError` of one short printable line, soon.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import toy
from nas.errors import LONGEST, NASError
from nas.files import dump_yaml, read_text
from nas.genotype.file import Genotype
from nas.importing.formats import import_genotype
from nas.registry import kind
from nas.report.recorded import read_run
from nas.run import checkpoint
from nas.run.config import load_config
from nas.run.folder import read_records, read_state, read_versions
from nas.run.images import read_upright, upright_size
from nas.searchers.journal import Journal
from nas.space.operations import OperationSet
from search_spaces.classification.cifar import CIFAR10, CIFAR100
from search_spaces.classification.idx import IDX
from tmics_space.data.layouts import find_layout

SECONDS = 2.0
"""Of the processor: the quadratic ones took 16."""

Reader = Callable[[Path], object]


def in_folder(name: str, read: Callable[[Path], object]) -> Reader:
    """A reader of the folder around a file of that name."""

    def reader(path: Path) -> object:
        path.rename(path.parent / name)
        return read(path.parent)

    return reader


def of_importer(format: str) -> Reader:
    return lambda path: import_genotype(format, read_text(path), str(path))


def of_state(path: Path) -> object:
    (path.parent / "checkpoints").mkdir()
    path.rename(path.parent / "checkpoints" / "last.pt")
    return read_state(path.parent)


def of_run(path: Path) -> object:
    """The metrics of a run whose other files are whole."""
    path.rename(path.parent / "metrics.jsonl")
    (path.parent / "config.yaml").write_text(toy.config().dump())
    about = {"package": "", "python": "", "torch": "", "platform": "", "seed": 0, "started": "", "config": ""}
    (path.parent / "versions.yaml").write_text(dump_yaml(about))
    return read_run(path.parent)


def of_cifar(name: str, names: str, kind: type[CIFAR10] | type[CIFAR100]) -> Reader:
    def read(folder: Path) -> object:
        (folder / names).write_text("cat\ndog\n")
        return kind(str(folder)).load()

    return in_folder(name, read)


READERS: dict[str, Reader] = {
    "genotype": Genotype.load,
    "configuration": load_config,
    "layout": find_layout,
    "operations": OperationSet.load,
    "records": in_folder("metrics.jsonl", read_records),
    "run": of_run,
    "versions": in_folder("versions.yaml", read_versions),
    "checkpoint": checkpoint.load,
    "state": of_state,
    "weights": checkpoint.load_weights,
    "image": read_upright,
    "size": upright_size,
    "idx": in_folder("train-images-idx3-ubyte", lambda folder: IDX(str(folder)).load()),
    "idx.gz": in_folder("train-images-idx3-ubyte.gz", lambda folder: IDX(str(folder)).load()),
    "cifar-10": of_cifar("data_batch_1.bin", "batches.meta.txt", CIFAR10),
    "cifar-100": of_cifar("train.bin", "fine_label_names.txt", CIFAR100),
    "journal": Journal,
    **{f"import {format}": of_importer(format) for format in kind("importer").names()},
}


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + bytes(4) for name, data in chunks
    )


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def photograph(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, format)
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + b"(" * 100_000)
    return buffer.getvalue()


ESCAPE = "\x1b[31mred\x1b]0;title\x07\u202e"
VALUES = {
    "set": "!!set {a, b}",
    "binary": "!!binary aGVsbG8=",
    "ordered": "!!omap [a: 1]",
    "time": "!!timestamp 2001-01-01",
    "object": "!!python/object/apply:os.system [echo]",
    "surrogate": '"\\ud800"',
    "24 digits": "9" * 24,
    "negative": "-" + "9" * 24,
    "5000 digits": "9" * 5000,
    "5000 hex digits": "0x" + "f" * 5000,
    "minus signs": "-" * 5000 + "1",
    "minuses": "-" * 3000 + "1",
    "nan": ".nan",
    "null": "null",
    "escape": json.dumps(ESCAPE),
    "long": "x" * 20_000,
    "words": "word~ " * 2_000,
    "deep": "[" * 500 + "]" * 500,
    "mapping": "{a: {b: [1, {c: d}]}}",
    "list": "[1, [2, a], b]",
    "twice": "{a: 1, a: 2}",
    "number": "-7",
}
"""What stands in place of values, keys, lines and texts."""

GENOTYPES = (
    "schema: 1\nspace: toy\nchoices: {{first: {0}, second: tanh}}",
    "schema: 1\nspace: toy\noptions: {{channels: {0}}}\nchoices: {{}}",
    "schema: {0}\nspace: toy\nchoices: {{}}",
)
RECORDS = ('{{"kind": "train", "level": {0}, "loss": {0}, "step": {0}}}\n', '{{"kind": {0}}}\n')
CALL = (
    "Genotype(normal=[({0}, 0), ('skip_connect', {0})], normal_concat={0}, reduce={0}, reduce_concat=range({0}))",
    "Genotype(normal_1=[({0}, 0)], normal_1_concat={0}, normal_2={0}, normal_2_concat={0}, normal_3={0}, **{0})",
)
PLACES: dict[str, tuple[str, ...]] = {
    "genotype": GENOTYPES,
    "configuration": ("space: toy\nseed: {0}", "space: {0}\ntask: {0}\nsearch: {0}\nretrain: {0}"),
    "layout": (
        "splits: {{a: {{rain: {0}, truth: b}}}}\ncrop: {0}",
        "splits: {{a: {{rain: '{{clip}}/({0}', truth: b}}}}",
    ),
    "operations": ("operations: {{a: {{factory: {0}}}, b: {{factory: residual, kernel: {0}}}}}",),
    "records": RECORDS,
    "run": RECORDS,
    "versions": ("package: {0}\nseed: {0}",),
    "journal": ('{{"op_code": {0}, "worker_id": {0}}}\n', '{{"op_code":{0}'),
    "import darts": CALL,
    "import tmics": CALL,
    "import nas-bench-201": ("|nor_conv_3x3~{0}|+|none~0|{0}|", "[[({0}, 0)], {0}]"),
    "import nni": ("{{normal/op_2_0: {0}, normal/input_{1}_0: {0}, width: {0}}}", "{{cell/0_{1}: {0}}}"),
    "import mmrazor": ("normal_n2: {{chosen: [{0}]}}\nnormal_n2_p{1}: {{chosen: {0}}}", "normal_n{1}: {{chosen: {0}}}"),
}
"""By reader, where else than alone the values stand: {0} as they are, {1} without what is no part of a word."""

TEXTS = {
    **VALUES,
    "many minus signs": "-" * 100_000 + "1",
    "many keys": "\n".join(f"key{i}: {i}" for i in range(5_000)),
    "a key twice": "splits: {a: {rain: b, truth: c}}\ncrop: 1\ncrop: 2",
    "aliases": "a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]",
    "endless alias": "a: &a [*a]",
    "much": "x" * 200_000,
    "lines": "{}\n" * 1000,
    "calls": "Genotype(" * 5_000 + ")" * 5_000,
    "brackets": "[" * 2_000 + "]" * 2_000,
    "mark": "\ufeffschema: 1",
}
BYTES = {
    "empty": b"",
    "zeros": bytes(5000),
    "not UTF-8": b"\xff\xfe\xfa" * 50,
    "noise": torch.randint(256, (4096,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    .numpy()
    .tobytes(),
    "png of a short header": png((b"IHDR", b"\x00\x00")),
    "png of no size": png((b"IHDR", bytes(13))),
    "png of a huge size": png((b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))),
    "png without pixels": png((b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)), (b"IEND", b"")),
    **{f"half a {kind}": photograph(kind)[:-40] for kind in ("png", "jpeg", "tiff", "webp", "bmp", "gif")},
    **{f"head of a {kind}": photograph(kind)[:22] for kind in ("png", "jpeg", "tiff", "webp", "bmp", "gif")},
    "idx of a huge size": struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3),
    "idx of no images": struct.pack(">4B3I", 0, 0, 8, 3, 0, 28, 28),
    "gzip, cut": gzip.compress(bytes(1000))[:20],
    "gzip of noise": gzip.compress(bytes(range(256))),
    "pickle": saved({"format": 1, "state": Path("x")}),
    "list": saved([1, 2]),
    "no state": saved({"format": 1}),
    "no metrics": saved({"format": 1, "state": {}}),
    "no fields": saved({"format": 1, "state": {"metrics": "x", "state": 1}}),
    "archive": archive(),
    "weights of a huge header": struct.pack("<Q", 2**63) + b"{}",
    "weights of a huge tensor": struct.pack("<Q", 64)
    + b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'.ljust(64)
    + bytes(4),
    "weights of an unknown type": struct.pack("<Q", 64)
    + b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'.ljust(64)
    + bytes(4),
    **{name: text.encode("utf-8", "surrogatepass") for name, text in TEXTS.items()},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_file_is_a_value_or_one_line(reader: str, tmp_path: Path) -> None:
    failures = []
    placed = {
        f"{name} in place {i}": place.format(value, re.sub(r"\W", "", value)).encode("utf-8", "surrogatepass")
        for i, place in enumerate(PLACES.get(reader, ()))
        for name, value in VALUES.items()
    }
    for number, (name, data) in enumerate({**BYTES, **placed}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "file.yaml"
        path.write_bytes(data)
        begun = time.process_time()
        try:
            READERS[reader](path)
        except NASError as error:
            message = str(error)
            if len(message) > 2 * LONGEST or not message.isprintable():
                failures.append(f"{name}: message of {len(message)} characters: {message[:200]!r}")
        except Exception as error:  # noqa: BLE001  # all of them are failures
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        spent = time.process_time() - begun
        if spent > SECONDS:
            failures.append(f"{name}: {spent:.1f} s")
    assert not failures, "\n".join(failures)
