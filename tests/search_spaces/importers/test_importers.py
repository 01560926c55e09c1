"""Genotypes as the public projects write them, and what their errors name."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

import pytest

from nas.errors import NASError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.importing.formats import export_genotype, import_genotype
from nas.registry import kind
from nas.space.definition import Description, find_space, spaces

# Liu et al., ICLR 2019, in their published code; the last two as their followers add them.
DARTS = """
from collections import namedtuple

Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')

PRIMITIVES = ['none', 'max_pool_3x3', 'avg_pool_3x3', 'skip_connect']

DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
    ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5],
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0),
    ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])
DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
    ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),
    ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])

DARTS = DARTS_V2
"""
CELLS: dict[str, str] = {  # DARTS_V2 once more, node by node: operations and their sources
    "normal": "sep_conv_3x3 0 sep_conv_3x3 1 sep_conv_3x3 0 sep_conv_3x3 1"
    " sep_conv_3x3 1 skip_connect 0 skip_connect 0 dil_conv_3x3 2",
    "reduce": "max_pool_3x3 0 max_pool_3x3 1 skip_connect 2 max_pool_3x3 1"
    " max_pool_3x3 0 skip_connect 2 skip_connect 2 max_pool_3x3 1",
}
WORDS = {cell: text.split() for cell, text in CELLS.items()}
ORDER = [(cell, i // 4 + 2, i // 2 % 2, w[i], int(w[i + 1])) for cell, w in WORDS.items() for i in range(0, 16, 2)]

# NNI's hub (`darts-v2` of `DARTS.load_searched_model`), its older example, mmrazor's `DARTS_SUBNET_CIFAR_PAPER_ALIAS`.
HUB: dict[str, Any] = {}
OLD: dict[str, Any] = {}
MMRAZOR = ""
for cell, node, number, operation, source in ORDER:
    HUB |= {f"{cell}/op_{node}_{number}": operation, f"{cell}/input_{node}_{number}": [source]}
    OLD.setdefault(f"{cell}_n{node}_switch", []).append(f"{cell}_n{node}_p{source}")
    OLD |= {f"{cell}_n{node}_p{i}": [] for i in range(node) if f"{cell}_n{node}_p{i}" not in OLD}
    OLD[f"{cell}_n{node}_p{source}"] = operation.replace("_pool_3x3", "pool").replace("_", "")
for key, kept in OLD.items():
    if key.endswith("_switch"):
        MMRAZOR += f"{key.removesuffix('_switch')}:\n  chosen:\n" + "".join(f"  - {edge}\n" for edge in reversed(kept))
    else:  # where an edge is not kept, its strongest operation is written all the same
        written = next((op for c, n, _, op, s in ORDER if key == f"{c}_n{n}_p{s}"), "max_pool_3x3")
        MMRAZOR += f"{key}:\n  chosen:\n  - {written}\n"
BENCH = {"cell/0_1": "conv_3x3", "cell/0_2": "skip_connect", "cell/1_2": "none", "cell/0_3": "conv_1x1",
         "cell/1_3": "avg_pool_3x3", "cell/2_3": "skip_connect"}  # fmt: skip
ARCH = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|skip_connect~2|"

V2: dict[str, Choice] = {
    "normal/2": (0, 1), "normal/2<-0": "sep_conv_3x3", "normal/2<-1": "sep_conv_3x3",
    "normal/3": (0, 1), "normal/3<-0": "sep_conv_3x3", "normal/3<-1": "sep_conv_3x3",
    "normal/4": (0, 1), "normal/4<-0": "skip_connect", "normal/4<-1": "sep_conv_3x3",
    "normal/5": (0, 2), "normal/5<-0": "skip_connect", "normal/5<-2": "dil_conv_3x3",
    "reduce/2": (0, 1), "reduce/2<-0": "max_pool_3x3", "reduce/2<-1": "max_pool_3x3",
    "reduce/3": (1, 2), "reduce/3<-1": "max_pool_3x3", "reduce/3<-2": "skip_connect",
    "reduce/4": (0, 2), "reduce/4<-0": "max_pool_3x3", "reduce/4<-2": "skip_connect",
    "reduce/5": (1, 2), "reduce/5<-1": "max_pool_3x3", "reduce/5<-2": "skip_connect",
}  # fmt: skip


def read(format: str, text: str, **options: Any) -> Genotype:
    return kind("importer").find(format)(text, **options)


@pytest.mark.parametrize(
    ("format", "text", "options"),
    [
        ("darts", DARTS, {"name": "DARTS"}),
        ("nni", json.dumps(HUB), {}),
        ("nni", str(HUB), {}),
        ("nni", json.dumps({key: v[0] if isinstance(v, list) else v for key, v in HUB.items()}, indent=2), {}),
        ("nni", json.dumps(OLD, indent=2), {}),
        ("mmrazor", MMRAZOR, {}),
    ],
)
def test_one_genotype_in_every_format(format: str, text: str, options: dict[str, Any]) -> None:
    found = read(format, text, **options)
    assert found.space == "darts"
    assert list(found.choices.items()) == list(V2.items())
    published = {"channels": 36, "cells": 20, "affine": True, "operations": "darts-evaluation", "nodes": 4}
    assert found.options == published
    assert read(format, text, **options, channels=16).options == {**published, "channels": 16}


def pairs(cell: str, *, weights: bool = False) -> list[tuple[object, ...]]:
    return [(op, source, 0.25) if weights else (op, source) for c, _, _, op, source in ORDER if c == cell]


def fields(entries: dict[str, Any]) -> dict[str, Any]:
    concatenated = {f"{cell}_concat": [2, 3, 4, 5] for cell in entries}
    return {"normal": None, "normal_concat": None, "reduce": None, "reduce_concat": None} | entries | concatenated


FLAT = fields({cell: pairs(cell) for cell in CELLS})
NESTED = fields({c: [tuple(pairs(c, weights=True)[i : i + 2]) for i in range(0, 8, 2)] for c in CELLS})
CALL = "Genotype(" + ", ".join(f"{field}={value}" for field, value in FLAT.items()) + ")"


@pytest.mark.parametrize(
    "text",
    [
        CALL.replace("[2, 3, 4, 5]", "list(range(2, 6))"),
        "Genotype(" + ", ".join(f"{field}={value}" for field, value in NESTED.items()) + ", connectN=None)",
        str(FLAT),
        f"cells = {NESTED}",
        json.dumps({**NESTED, "connects": None}, indent=1),
        f"2019-10-04 16:08:33,120 (epoch 49) genotype = {CALL}\n2019-10-04 it's [done",
        f"INFO:root:found genotypes.{CALL} at {{epoch}} 3",
        f"10:08:33 best: {FLAT}",
    ],
    ids=["range", "nested triples", "dict", "named dict", "JSON", "log line", "log call", "log dict"],
)
def test_one_genotype_as_others_print_it(text: str) -> None:
    assert read("darts", text).choices == V2
    assert import_genotype("darts", f"\ufeff{text}\n").choices == V2


NODES = [(("nor_conv_3x3", 0),), (("none", 1), ("skip_connect", 0)),
         (("nor_conv_1x1", 0), ("avg_pool_3x3", 1), ("skip_connect", 2))]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [ARCH, f"Structure(4 nodes with {ARCH})", f"[12:03] best {ARCH} 93.2 of\n {ARCH}", str(NODES), json.dumps(NODES),
     f"arch = {NODES}"],
)  # fmt: skip
def test_one_cell_of_nas_bench_201_as_others_print_it(text: str) -> None:
    assert read("nas-bench-201", text) == read("nas-bench-201", ARCH)
    assert read("nas-bench-201", text).choices["cell/2<-0"] == "skip_connect"


@pytest.mark.parametrize("name", ["darts", "nas-bench-201"])
def test_what_is_written_reads_the_same(name: str) -> None:
    for number in range(20):
        genotype = random_genotype(name, number)
        assert read(name, export_genotype(name, genotype)).choices == genotype.choices
    with pytest.raises(NASError, match=f"of space '{name}'"):
        export_genotype(name, Genotype(space="other", choices={}))


@functools.cache
def description(space: str) -> Description:
    return find_space(space).describe()


def random_genotype(space: str, seed: int) -> Genotype:
    generator, choices = random.Random(seed), dict[str, Choice]()
    described = description(space)
    for decision in described.decisions.values():
        if decision.kind == "inputs":
            choices[decision.label] = tuple(sorted(generator.sample(decision.candidates, decision.keep)))
        elif decision.active(choices):
            choices[decision.label] = generator.choice(decision.candidates)
    return Genotype(space=space, choices=choices, options=described.options)


PDARTS = """PDARTS = Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0),('sep_conv_3x3', 1),
('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3',0), ('dil_conv_5x5', 4)], normal_concat=range(2, 6),
reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2), ('max_pool_3x3', 0),
('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], reduce_concat=range(2, 6))
"""
SUBNET = {  # mmrazor's DARTS_SUBNET_CIFAR_MMRAZOR_97.32.yaml, which lists the kept edges alone
    "normal": [{0: "sep_conv_3x3", 1: "sep_conv_3x3"}, {0: "skip_connect", 1: "sep_conv_5x5"},
               {0: "sep_conv_3x3", 1: "skip_connect"}, {0: "skip_connect", 1: "skip_connect"}],
    "reduce": [{0: "max_pool_3x3", 1: "sep_conv_3x3"}, {0: "max_pool_3x3", 2: "dil_conv_5x5"},
               {0: "max_pool_3x3", 2: "skip_connect"}, {0: "max_pool_3x3", 2: "skip_connect"}],
}  # fmt: skip


def test_what_followers_of_darts_publish() -> None:
    """P-DARTS (Chen et al., ICCV 2019): spaces as they come, and a `range`; sources need not be in order."""
    found = read("darts", PDARTS).choices
    assert (found["normal/4"], found["normal/4<-1"], found["normal/4<-3"]) == ((1, 3), "sep_conv_3x3", "sep_conv_3x3")
    assert (found["reduce/5<-1"], found["reduce/5<-3"]) == ("dil_conv_3x3", "dil_conv_5x5")


def test_a_subnet_of_the_kept_edges_alone() -> None:
    text = ""
    for cell, nodes in SUBNET.items():
        for node, edges in enumerate(nodes, 2):
            text += f"{cell}_n{node}:\n  chosen:\n" + "".join(f"  - {cell}_n{node}_p{i}\n" for i in edges)
            text += "".join(f"{cell}_n{node}_p{i}:\n  chosen:\n  - {name}\n" for i, name in edges.items())
    found = read("mmrazor", text).choices
    for cell, nodes in SUBNET.items():
        for node, edges in enumerate(nodes, 2):
            assert found[f"{cell}/{node}"] == tuple(edges)
            assert [found[f"{cell}/{node}<-{i}"] for i in edges] == [*edges.values()]


def test_values_of_the_hub_become_options() -> None:
    options = read("nni", json.dumps({"width": 32, "depth": 8, **HUB}), cells=9).options
    assert (options["channels"], options["cells"]) == (32, 9)


def test_other_numbers_of_nodes() -> None:
    text = "g = Genotype([('none', 0), ('skip_connect', 1)], [2], [('none', 1), ('sep_conv_5x5', 0)], range(2, 3))"
    found = read("darts", text)
    assert found.options["nodes"] == 1
    assert found.choices["reduce/2<-0"] == "sep_conv_5x5"


@pytest.mark.parametrize("separator", ["/", "__"])
def test_nas_bench_201_of_nni(separator: str) -> None:
    found = read("nni", json.dumps({key.replace("/", separator): value for key, value in BENCH.items()}))
    assert found.space == "nas-bench-201"
    assert found.choices["cell/1<-0"] == "nor_conv_3x3"
    assert found.choices["cell/3"] == (0, 1, 2)
    assert found.choices["cell/3<-1"] == "avg_pool_3x3"


@pytest.mark.skipif(not {"darts", "nas-bench-201"} <= set(spaces()), reason="the spaces are not installed")
def test_what_is_read_fits_its_space() -> None:
    for name in ("DARTS_V1", "DARTS_V2"):
        imported = import_genotype("darts", DARTS, "genotypes.py", name=name)
        shipped = Genotype.load(name.lower().replace("_", "-"))
        assert (imported.options, imported.choices) == (shipped.options, shipped.choices)
    assert import_genotype("mmrazor", MMRAZOR).choices == V2
    bench = [import_genotype("nas-bench-201", ARCH), import_genotype("nni", json.dumps(BENCH))]
    assert (bench[0].options, bench[0].choices) == (bench[1].options, bench[1].choices)


def hub(**changes: Any) -> str:
    """The hub's dictionary with keys changed (`normal_op_2_0`), or taken out by None."""
    keys = {key.replace("/", "_"): key for key in HUB}
    data = {**HUB, **{keys.get(key, key): value for key, value in changes.items()}}
    return json.dumps({key: value for key, value in data.items() if value is not None})


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("darts", DARTS, "got DARTS_V1, DARTS_V2, DARTS[.]"),
        ("darts", DARTS.partition("DARTS_V2")[0].replace("('skip_connect', 2)]", "('sep_conv_7x7', 2)]", 1),
         "line 9: .* none, .*got 'sep_conv_7x7' .*'sep_conv_"),
        ("darts", DARTS.partition("DARTS_V2")[0].replace("('skip_connect', 2)]", "('skip_connect', 5)]", 1),
         "line 9: .*from 0 to 4, got 5"),
        ("darts", DARTS.partition("DARTS_V2")[0].replace("('sep_conv_3x3', 1), ('sep", "('sep_conv_3x3', 0), ('sep", 1),
         "line 8: .*node 2 .*got 0"),
        ("darts", DARTS.partition("DARTS_V2")[0].replace("[2, 3, 4, 5]", "[4, 5]", 1),
         "line 8: 'normal_concat' must be all nodes, 2, 3, 4, 5, got 4, 5"),
        ("darts", "Genotype([('none', 0)], [2], [], [])", "line 1: node 2 of 'normal' must have 2 in-edges, got 1"),
        ("darts", "Genotype([], [], [], [])", "must have equally many nodes, at least 1, got 0 and 0"),
        ("darts", "import os; os.system('true')", r"Genotype\(\.\.\.\), got none"),
        ("darts", "Genotype(recurrent=[('tanh', 0)], concat=range(1, 9))", "line 1: 'recurrent': cells of"),
        ("darts", "{'recurrent': [], 'concat': []}", "line 1: 'recurrent': cells of"),
        ("darts", f"{CALL}\n\n{CALL}",
         r"got unnamed ones in line 1 and 3[.] .*'NAME = Genotype\(\.\.\.\)'"),
        ("darts", f"a = {CALL}\n{CALL}", "got a, unnamed ones in line 2[.]"),
        ("darts", CALL.replace("2)", "2, 'much')", 1), "line 1: .*weight of an edge.*got 'much'"),
        ("darts", str(NESTED).replace(", 0.25), (", ", 0.25), ('none', 0), (", 1),
         "node 2 of 'normal' must have 2 in-edges, got 3"),
        ("nas-bench-201", f"{ARCH}, {ARCH.replace('none', 'skip_connect')}", "must be one cell in the text, got 2"),
        ("nas-bench-201", f"{NODES}\n{NODES[:2] + NODES[:1]}", "line 2: 'node 3' must be .*3 items, got"),
        ("nas-bench-201", f"{NODES}\n{str(NODES).replace('none', 'nor_conv_1x1')}", "one cell in the text, got 2"),
        ("nas-bench-201", "['none', 'skip_connect', 'none', 'none', 'none', 'none']", "line 1: .* without sources"),
        ("nas-bench-201", "[4, 0, 3, 1, 4, 3]", "line 1: .* without sources"),
        ("nas-bench-201", str(NODES[:2]), "line 1: 'cell' must be .*3 items, got"),
        ("nas-bench-201", str(NODES).replace("('none', 1)", "('none', 0)"),
         "line 1: .*node 2 .*got 0"),
        ("nas-bench-201", "nothing", "must be .*, got 'nothing'"),
        ("nni", hub(normal_op_2_0="sep_conv_9x9"), "normal/op_2_0: .*got 'sep_conv_9x9'"),
        ("nni", hub(normal_input_3_1=[0, 1]), r"normal/input_3_1: .*from 0 to 2, got \[0, 1\]"),
        ("nni", hub(reduce_op_5_1=None), "'reduce/op_5_1' must be in the dictionary"),
        ("nni", hub(dropout=0.5), "labels .* like 'normal/op_2_0', got 'dropout'"),
        ("nni", '{"layer_1": "conv"}', "labels must .*, got 'layer_1'"),
        ("nni", "[1]", r"must be a dictionary .*, got \[1\]"),
        ("nni", "{", "dictionary:1: not valid YAML"),
        ("nni", json.dumps({**OLD, "normal_n3_p0": 2}), "normal_n3_p0: .*got 2"),
        ("nni", json.dumps({**OLD, "normal_n3_switch": ["normal_n3_p0", "normal_n4_p1"]}),
         "normal_n3_switch: .*normal_n3_p0, normal_n3_p1, got 'normal_n4_p1'"),
        ("nni", json.dumps({**OLD, "normal_n3_switch": ["normal_n3_p0"]}), "normal_n3: must keep 2 in-edges, got 1"),
        ("nni", json.dumps({**OLD, "normal_n3_switch": 3}), "normal_n3_switch: .*list.*got 3"),
        ("nni", json.dumps(dict(list(BENCH.items())[:-1])), "the edge from 2 to 3 must be in the dictionary"),
        ("mmrazor", MMRAZOR.replace("dil_conv_3x3", "dil_conv"), "normal_n5_p2: .*got 'dil_conv'"),
        ("mmrazor", MMRAZOR.replace("normal_n4:", "normal_n7:"), "'normal_n4' must be given"),
        ("mmrazor", MMRAZOR.replace("normal_n4:", "backbone.layer:"), "names must .*, got 'backbone.layer'"),
        ("mmrazor", "normal_n2: 3", r"normal_n2: must be \{chosen: \[\.\.\.\]\}, got 3"),
        ("mmrazor", "normal_n2_p0: {chosen: [skip_connect, none]}", "normal_n2_p0: .*got 'none'"),
        ("mmrazor", "", "must be a mapping .*, got None"),
    ],
)  # fmt: skip
def test_errors_name_the_token(format: str, text: str, message: str) -> None:
    with pytest.raises(NASError, match=message):
        read(format, text)
