"""Write the shipped tables in search_spaces/tables from those in $NAS_DATA/nas; with --check, only compare."""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nas.files import write_atomic
from nas.space.primitives import NAS_BENCH_201

FOLDER = Path(__file__).parent.parent / "search_spaces" / "tables"
ACCURACIES = ("val_e12", "test_e12", "test_e200")
"""Of each data set: validation and test after 12 epochs, test after 200."""


def nas_bench_201(folder: Path) -> str:
    """The nine accuracies of every cell. A cell is written by the positions of its six operations."""
    with gzip.open(folder / "nb201_table.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [f"{data}_{accuracy}" for data in ("c10", "c100", "in16") for accuracy in ACCURACIES]
    names = list(NAS_BENCH_201)

    def key(arch: str) -> str:
        return "".join(str(names.index(name)) for name in re.findall(r"\b\w+(?=~)", arch))

    return _text("cell", columns, ((key(row["arch"]), [row[name] for name in columns]) for row in rows))


def nas_bench_macro(folder: Path) -> str:
    """The test accuracies of three trainings, parameters and multiply-adds of every network."""
    with gzip.open(folder / "nas-bench-macro_cifar10.json.gz", "rt", encoding="utf-8") as file:
        rows = json.load(file)
    columns = ["test_1", "test_2", "test_3", "params", "macs"]
    return _text(
        "layers",
        columns,
        (
            (key, [*(f"{accuracy:.2f}" for accuracy in row["test_acc"]), str(row["params"]), str(row["flops"])])
            for key, row in rows.items()
        ),
    )


TABLES: dict[str, Callable[[Path], str]] = {"nas_bench_201": nas_bench_201, "nas_bench_macro": nas_bench_macro}


def _text(key: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """The rows as CSV, ordered by key."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([key, *columns])
    writer.writerows([name, *cells] for name, cells in sorted(rows))
    return file.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a shipped table is not up to date")
    arguments = parser.parse_args()
    if "NAS_DATA" not in os.environ:
        sys.exit("NAS_DATA must name the folder of the data, got none")
    stale = []
    for name, made in TABLES.items():
        path, text = FOLDER / f"{name}.csv.gz", made(Path(os.environ["NAS_DATA"], "nas"))
        if not path.is_file() or gzip.decompress(path.read_bytes()).decode() != text:
            stale.append(path)
            if not arguments.check:
                packed = gzip.compress(text.encode(), mtime=0)
                write_atomic(path, lambda file, packed=packed: file.write(packed))
    for path in stale:
        print(f"{path.name}: {'not up to date' if arguments.check else 'written'}")
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
