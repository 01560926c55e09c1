"""The shipped tables, registered as a third party's. README.md in this folder says whose results they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nas.benchmark.table import Published, Table, Target

DONG_AND_YANG = 'Dong and Yang, "NAS-Bench-201", ICLR 2020, table 5'
CIFAR = (3, 32, 32)


def nas_bench_201() -> Table:
    """Read the table of the space `nas-bench-201`: validation and test accuracy in percent on three data sets."""
    return Table.of(
        "nas-bench-201",
        _path("nas_bench_201"),
        options={"affine": True},
        targets={data: Target(f"{data}_val_e12", f"{data}_test_e200") for data in ("c10", "c100", "in16")},
        published=[
            # 12,000 simulated seconds; that of a random search is the time of 80 to 100 trainings
            Published("random", "c10", 93.70, 0.36, 90, DONG_AND_YANG),
            Published("evolution", "c10", 93.92, 0.30, 90, DONG_AND_YANG),
            Published("reinforce", "c10", 93.85, 0.37, 90, DONG_AND_YANG),
        ],
        source="NAS-Bench-201 (Dong and Yang, ICLR 2020)",
        input=CIFAR,
    )


def nas_bench_macro() -> Table:
    """Read the table of the space `nas-bench-macro`: test accuracy in percent on CIFAR-10.

    The benchmark has no validation accuracy. A searcher sees the first of three trainings. The mean of the other two,
    `test_2_3`, judges its choice.
    """
    source = "NAS-Bench-Macro (Su et al., CVPR 2021)"
    table = Table.of("nas-bench-macro", _path("nas_bench_macro"), source=source, input=CIFAR)
    first, second, third = (table.columns[f"test_{training}"] for training in (1, 2, 3))
    columns = {**table.columns, "test": (first + second + third) / 3, "test_2_3": (second + third) / 2}
    return replace(table, columns=columns, targets={"c10": Target("test_1", "test_2_3")})


def nas_bench_201_small() -> Table:
    """Read the table of the space `nas-bench-201-small`: accuracy in percent on Fashion-MNIST of 14x14 pixels.

    A searcher sees the validation accuracy of one training of each network. The mean test accuracy of all its trainings
    judges.
    """
    return Table.of(
        "nas-bench-201-small",
        _path("nas_bench_201_small"),
        options={"affine": True},
        targets={"fashion": Target("val_0", "test")},
        source="tools/enumerate_cells.py",
        input=(1, 14, 14),
    )


def _path(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.csv.gz")
