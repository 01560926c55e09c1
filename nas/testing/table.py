"""What every table must satisfy: a test class to inherit from.

>>> class TestMyTable(TableTests):
...     table = "my-table"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.testing.subject import Subject, made

if TYPE_CHECKING:
    from nas.benchmark.table import Table


class TableTests:
    """Conformance tests of a table: subclass it in a test module, as `Test...`, and name the table."""

    table: ClassVar[Subject]
    """A registered name, or a function that returns a `nas.benchmark.table.Table`."""
    trials: ClassVar[int] = 3
    """How many networks are built."""

    def test_columns_have_a_finite_number_for_each_network(self) -> None:
        table = self._table()
        assert table.columns, "a table must have at least one column"
        for name, column in table.columns.items():
            assert np.shape(column) == (len(table),), (
                f"column '{name}' must have {len(table):,} numbers, one for each network, got {np.shape(column)}"
            )
            assert np.isfinite(column).all(), f"column '{name}' must be finite"

    def test_every_network_has_a_row_of_its_own(self) -> None:
        table = self._table()
        assert table.enumeration.complete, "the space has more networks than the table"
        for row in range(len(table)):
            found = table.row(table.enumeration.choices(row))
            assert found == row, f"the network of row {row} is found in row {found}"

    def test_networks_build(self) -> None:
        table = self._table()
        for row in {int(row) for row in np.linspace(0, len(table) - 1, self.trials)}:
            table.description.space.derived(table.genotype(row))

    def test_targets_name_columns(self) -> None:
        table = self._table()
        assert table.targets, "a table must have a target: the column that a searcher sees, and the one that judges"
        for name, target in table.targets.items():
            for column in target:
                assert column in table.columns, f"target '{name}' names the column '{column}', which the table lacks"
        for each in table.published:
            assert each.target in table.targets, f"a published result has the target '{each.target}', which is unknown"
            assert each.deviation >= 0, f"a standard deviation must be at least 0, got {each.deviation:g}"
            assert each.evaluations >= 1, f"evaluations must be at least 1, got {each.evaluations}"

    def test_it_is_repeatable(self) -> None:
        first, second = self._table(), made("table", type(self).table)
        for name, column in first.columns.items():
            assert np.array_equal(column, second.columns[name]), f"made twice, column '{name}' differs"

    def _table(self) -> Table:
        tests: Any = type(self)
        if "_read" not in vars(tests):
            tests._read = made("table", tests.table)  # once: it takes a while
        read: Table = tests._read
        return read
