"""The shipped tables, against what their papers and the cost of their networks say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import search_spaces.tables
from nas.benchmark.rankings import kendall, spearman
from nas.benchmark.table import Table, find_table
from nas.cost.network_cost import measure
from nas.cost.space_cost import costs
from nas.testing import TableTests
from search_spaces.nas_bench_201 import NOTATION, genotype_of

FOLDER = Path(search_spaces.tables.__file__).parent


class TestNASBench201(TableTests):
    table = "nas-bench-201"


class TestNASBenchMacro(TableTests):
    table = "nas-bench-macro"


class TestNASBench201Small(TableTests):
    table = "nas-bench-201-small"


@pytest.fixture(scope="module")
def bench_201() -> Table:
    return find_table("nas-bench-201")


@pytest.fixture(scope="module")
def macro() -> Table:
    return find_table("nas-bench-macro")


def test_the_files_are_small_and_name_their_authors() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.gz")) < 500_000
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in (
        "Permission is hereby granted",
        "Changes to the original file",
        "ICLR 2020",
        "CVPR 2021",
        "Xuanyi Dong",
    ):
        assert word in text
    assert "Copyright 2021 Xiu Su" in (FOLDER / "LICENSE-nas-bench-macro.txt").read_text(encoding="utf-8")


def test_all_cells_of_nas_bench_201(bench_201: Table) -> None:
    assert len(bench_201) == 5**6
    assert len(bench_201.columns) == 9
    best = [bench_201.column(target.judged).max() for target in bench_201.targets.values()]
    assert best == pytest.approx([94.37, 73.51, 47.31], abs=0.005)
    skip = bench_201.row(genotype_of(NOTATION.format(*["skip_connect"] * 6)).choices)
    found = [bench_201.column(target.judged)[skip] for target in bench_201.targets.values()]
    assert found == pytest.approx([54.30, 15.61, 16.32], abs=0.005)
    taus = [kendall(bench_201.column(t.seen), bench_201.column(t.judged)) for t in bench_201.targets.values()]
    assert taus == pytest.approx([0.594, 0.645, 0.644], abs=5e-4)


def test_all_networks_of_nas_bench_macro(macro: Table) -> None:
    assert len(macro) == 3**8
    best = macro.column("test").max()
    assert best == pytest.approx(93.127, abs=5e-4)
    assert best == macro.column("test")[macro.enumeration.row_of_key("22212220")]


def test_the_small_table_is_that_of_its_trainings() -> None:
    table = find_table("nas-bench-201-small")
    assert len(table) == 81
    for split in ("val", "test"):
        seeds = [column for name, column in table.columns.items() if name.startswith(f"{split}_")]
        assert len(seeds) >= 2
        assert np.mean(seeds, axis=0) == pytest.approx(table.column(split), abs=0.006)
    assert [measure(table.genotype(row)) for row in (0, 40, 80)] == table.column("params")[[0, 40, 80]].tolist()
    first, second = (table.column(f"val_{seed}") for seed in (0, 1))
    assert np.corrcoef(first, second)[0, 1] >= 0.8  # it tells networks apart
    equal = [table.enumeration.row_of_key(key) for key in ("0120", "0210", "1200", "2100")]  # one function
    assert len({*table.column("test")[equal]}) == 1


def test_the_space_of_nas_bench_macro_has_the_parameters_and_multiply_adds_of_its_table(macro: Table) -> None:
    parameters = costs(macro.description)
    flops = costs(macro.description, "flops", [torch.zeros(1, 3, 32, 32)])
    choices = [macro.enumeration.choices(row) for row in range(len(macro))]
    assert [parameters.of(each) for each in choices] == macro.column("params").tolist()
    assert [flops.of(each) / 2 for each in choices] == macro.column("macs").tolist()
    assert measure(macro.genotype(4321)) == macro.column("params")[4321]


def test_parameters_and_flops_rank_all_cells(bench_201: Table) -> None:
    """Spearman's correlation of both with CIFAR-10 test accuracy after 200 epochs is .753."""
    for cost in (costs(bench_201.description), costs(bench_201.description, "flops", [torch.zeros(1, 3, 32, 32)])):
        found = np.array([cost.of(bench_201.enumeration.choices(row)) for row in range(len(bench_201))])
        assert spearman(found, bench_201.column("c10_test_e200")) == pytest.approx(0.753, abs=0.005)
