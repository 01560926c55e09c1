"""Genotype files: strict, versioned, and read back as written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nas.compare.problems import lint
from nas.errors import InvalidFileError, UnknownNameError
from nas.files import parse_yaml
from nas.genotype import file as module
from nas.genotype.decision import Decision, requirements
from nas.genotype.file import SCHEMA, Genotype, Provenance, json_schema, shipped, upgrade

GOLDEN = Path(__file__).parents[1] / "golden"

ODD = ["1", "08", "1e-3", "12:30", "no", "null", "2001-01-01", "", "a: b", "é", "a\x85b", "=", "<<", "-", "\U0001f600"]

texts = st.text() | st.sampled_from(ODD)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
options = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
provenances = st.builds(
    Provenance,
    package=texts,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    config=texts,
    source=texts,
    scores=st.dictionaries(texts, st.floats(allow_nan=False)),
    margins=st.dictionaries(texts, st.floats(0, 1)),
)
genotypes = st.builds(
    Genotype,
    space=texts,
    choices=st.dictionaries(
        texts, texts | st.integers(-(2**63), 2**63 - 1) | st.lists(st.integers(-(2**63), 2**63 - 1)).map(tuple)
    ),
    options=st.dictionaries(texts, options),
    provenance=st.none() | provenances,
)
MINIMAL = {"schema": 1, "space": "t", "choices": {"a": "conv", "w": 8, "n/2": [0, 1]}}


@given(genotypes)
@example(Genotype(space="t", choices={odd: odd for odd in ODD}, options={odd: [odd, {odd: odd}] for odd in ODD}))
def test_load_is_the_inverse_of_save(tmp_path_factory: pytest.TempPathFactory, genotype: Genotype) -> None:
    path = tmp_path_factory.getbasetemp() / "genotype.yaml"
    genotype.save(path)
    assert Genotype.load(path) == genotype


@given(genotypes)
def test_files_fit_the_schema(genotype: Genotype) -> None:
    data = json.loads(json.dumps(parse_yaml(genotype.dump(), "genotype")))  # tuples to lists
    jsonschema.validate(data, json_schema(), cls=jsonschema.Draft202012Validator)


def test_dump_is_readable() -> None:
    genotype = Genotype(
        space="tmics",
        options={"channels": 96, "rate": 1e-3},
        choices={"alignment": "tgm", "cell/1": "no", "width": 8, "n/2": (0, 1)},
        provenance=Provenance(seed=3, margins={"alignment": 0.25}),
    )
    assert genotype.dump() == (
        "schema: 1\nspace: tmics\noptions:\n  channels: 96\n  rate: 0.001\nchoices:\n  alignment: tgm\n  cell/1: 'no'\n"
        "  width: 8\n  n/2: [0, 1]\nprovenance:\n  seed: 3\n  margins:\n    alignment: 0.25\n"
    )


def test_a_minimal_file_is_read() -> None:
    genotype = Genotype.parse("schema: 1\nspace: t\nchoices: {a: conv, n/2: [0, 1], w: 8}")
    assert genotype == Genotype(space="t", choices={"a": "conv", "n/2": (0, 1), "w": 8})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "g must be a mapping with 'schema', 'space' and 'choices'"),
        ("[1]", "g must be a mapping"),
        ("a: b: c", "g:1: not valid YAML"),
        ("space: t\nchoices: {}", "g: has no 'schema' field; this package reads version 1"),
        ("schema: 2\nspace: t\nchoices: {}", "g: has schema version 2; this package reads version 1"),
        ("schema: '1'\nspace: t\nchoices: {}", "g: has schema version '1'"),
        ("schema: true\nspace: t\nchoices: {}", "g: has schema version True"),
        ("schema: 1.0\nspace: t\nchoices: {}", "g: has schema version 1.0"),
        ("schema: 1\nchoices: {}", "g: missing the required field 'space'"),
        ("schema: 1\nspace: t", "g: missing the required field 'choices'"),
        ("schema: 1\nspace: 3\nchoices: {}", "g: space: Expected 'str', got 'int'"),
        ("schema: 1\nspace: t\nchoises: {}", "g: unknown field 'choises' (did you mean 'choices'?)"),
        ("schema: 1\nspace: t\nchoices: [a]", "g: choices: Expected 'mapping', got 'list'"),
        ("schema: 1\nspace: t\nchoices: {a: off}", "g: choices.a: Expected 'int | str | list', got 'bool'"),
        ("schema: 1\nspace: t\nchoices: {a: 1.5}", "g: choices.a: Expected 'int | str | list', got 'float'"),
        ("schema: 1\nspace: t\nchoices: {a: }", "g: choices.a: Expected 'int | str | list', got 'null'"),
        ("schema: 1\nspace: t\nchoices: {a: [x]}", "g: choices.a: [0]: Expected 'int', got 'str'"),
        ("schema: 1\nspace: t\nchoices: {1: x}", "g: choices: Expected 'str', got 'int' as a key"),
        ("schema: 1\nspace: t\nchoices: {a: x, a: y}", "g:3: not valid YAML: key 'a' is given twice"),
        ("schema: 1\nspace: t\nchoices: {}\noptions: 1", "g: options: Expected 'mapping', got 'int'"),
        ("schema: 1\nspace: t\nchoices: {}\nprovenance: {sed: 1}", "g: provenance: unknown field 'sed' (did you mean"),
        ("schema: 1\nspace: t\nchoices: {}\nprovenance: {seed: x}", "g: provenance.seed: Expected 'int | null', got"),
    ],
)  # fmt: skip
def test_errors_name_the_file_and_field(text: str, message: str) -> None:
    with pytest.raises(InvalidFileError) as error:
        Genotype.parse(text, "g")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": None},
        {"space": 1},
        {"choices": {"a": 1.5}},
        {"choices": {"a": None}},
        {"choices": {"a": [0, "x"]}},
        {"choices": ["a"]},
        {"options": []},
        {"unknown": 1},
        {"provenance": {"unknown": 1}},
        {"provenance": {"seed": "x"}},
        {"provenance": {"margins": {"a": "x"}}},
    ],
)
def test_the_schema_refuses_what_parse_refuses(change: dict[str, Any]) -> None:
    jsonschema.validate(MINIMAL, json_schema())
    data = {**MINIMAL, **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema())
    with pytest.raises(InvalidFileError):
        Genotype.parse(json.dumps(data))


@pytest.mark.parametrize("field", ["schema", "space", "choices"])
def test_the_schema_requires_what_parse_requires(field: str) -> None:
    data = {name: value for name, value in MINIMAL.items() if name != field}
    with pytest.raises(jsonschema.ValidationError, match=f"'{field}' is a required property"):
        jsonschema.validate(data, json_schema())


def test_the_schema_is_valid_and_names_its_version() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["Genotype"]["properties"]["schema"] == {"const": SCHEMA}


def test_save_names_a_file_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="cannot be written"):
        Genotype(space="t", choices={}).save(tmp_path)


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("schema: 1\nspace: t\nchoices: {a: 0.5}", encoding="utf-8")
    with pytest.raises(InvalidFileError, match=r"bad\.yaml: choices\.a: Expected"):
        Genotype.load(path)
    with pytest.raises(InvalidFileError, match=r"none\.yaml: cannot be read: No such file"):
        Genotype.load(tmp_path / "none.yaml")


def test_shipped_genotypes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Genotype(space="t", choices={"a": "x"}).save(tmp_path / "shipped-one.yaml")
    monkeypatch.setattr(module, "shipped", lambda: {"shipped-one": tmp_path / "shipped-one.yaml"})
    (tmp_path / "shipped-one").mkdir()  # such as the folder of a run
    monkeypatch.chdir(tmp_path)
    assert Genotype.load("shipped-one").choices == {"a": "x"}
    with pytest.raises(
        UnknownNameError, match=r"genotype 'shiped-one' \(did you mean 'shipped-one'\?\).*path of a file"
    ):
        Genotype.load("shiped-one")
    with pytest.raises(UnknownNameError):
        Genotype.load("x" * 5000)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_genotype_is_valid(name: str) -> None:
    genotype = Genotype.load(name)
    assert Genotype.parse(genotype.dump()) == genotype
    jsonschema.validate(parse_yaml(shipped()[name].read_text(encoding="utf-8"), name), json_schema())


def test_decisions_accept_their_candidates_only() -> None:
    operation = Decision("a", "operation", ("x", "y"))
    assert operation.accepts("x")
    assert not any(operation.accepts(other) for other in ("z", 0, (), (0,), ""))
    width = Decision("w", "width", (4, 8))
    assert width.accepts(8)
    assert not any(width.accepts(other) for other in (6, "4", (4,)))
    inputs = Decision("n", "inputs", (0, 1, 2), keep=2)
    assert inputs.accepts((0, 2))
    assert inputs.accepts((2, 0))
    assert not any(inputs.accepts(other) for other in ((0,), (0, 0), (0, 0, 2), (0, 1, 2), (0, 3), 0, "0", ()))


def test_decisions_exist_where_one_of_their_conditions_holds() -> None:
    decision = Decision("b", "operation", ("x",), conditions=(("a", "p"), ("n", 1), ("d", 3)))
    assert Decision("b", "operation", ("x",)).active({})
    assert decision.active({"a": "p"})
    assert decision.active({"a": "q", "n": (0, 1)})
    assert decision.active({"d": 3})
    assert not any(decision.active(choices) for choices in ({}, {"a": "q"}, {"n": (0, 2)}, {"n": (), "d": 2}))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((), ()),
        ((("depth", 1), ("depth", 2), ("depth", 3)), ()),
        ((("depth", 2), ("depth", 3)), (("depth", 2), ("depth", 3))),
        ((("inner", "x"), ("inner", "y")), (("outer", "b"),)),
        ((("inner", "x"), ("inner", "y"), ("outer", "a")), ()),
        ((("inner", "x"), ("outer", "a")), (("inner", "x"), ("outer", "a"))),
        ((("node", 0), ("node", 2)), ()),  # of three sources it keeps two
        ((("node", 1),), (("node", 1),)),
        ((("single", 0),), (("depth", 3),)),
    ],
)
def test_conditions_that_always_hold_are_not_required(conditions: Any, expected: Any) -> None:
    decisions = {
        "depth": Decision("depth", "depth", (1, 2, 3)),
        "outer": Decision("outer", "operation", ("a", "b")),
        "inner": Decision("inner", "operation", ("x", "y"), conditions=(("outer", "b"),)),
        "node": Decision("node", "inputs", (0, 1, 2), keep=2),
        "single": Decision("single", "inputs", (0,), conditions=(("depth", 3),)),
        "it": Decision("it", "operation", ("o",), conditions=conditions),
    }
    assert requirements("it", decisions) == expected


# --- versions of the schema ---

GOLDEN_GENOTYPE = Genotype(
    space="tmics",
    options={"channels": 16, "frames": 3, "alignment": ["tgm"], "normalize": "batch"},
    choices={
        "alignment": "tgm",
        "frequency": "none",
        "cell/1": "residual_3x3",
        "cell/2": "dilated_5x5",
        "cell/3": "channel_attention",
        "cell/4": "spatial_attention",
    },
    provenance=Provenance(
        package="tmics-nas 0.1.0",
        seed=3,
        config="0123456789abcdef",
        source="written by hand",
        scores={"psnr": 30.25},
        margins={"alignment": 0.125},
    ),
)


@pytest.mark.parametrize("version", range(1, SCHEMA + 1))
def test_every_version_stays_loadable(version: int) -> None:
    """Files of released versions never change; a new version brings its own, and a migration."""
    path = GOLDEN / f"genotype-{version}.yaml"
    assert Genotype.load(path) == GOLDEN_GENOTYPE
    assert lint(path.read_text(encoding="utf-8")) == []
    assert set(module.MIGRATIONS) == set(range(1, SCHEMA))


@pytest.fixture
def _two_versions_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schema 3 calls `space` what version 2 called `place`, and version 1 `where`."""
    renamed = {1: ("where", "place"), 2: ("place", "space")}

    def migration(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda data: {new if key == old else key: value for key, value in data.items()}

    monkeypatch.setattr(module, "SCHEMA", 3)
    monkeypatch.setattr(module, "MIGRATIONS", {version: migration(*names) for version, names in renamed.items()})


@pytest.mark.usefixtures("_two_versions_later")
def test_older_versions_are_migrated_one_by_one(tmp_path: Path) -> None:
    expected = Genotype(space="t", choices={"a": "x"})
    for version, field in ((1, "where"), (2, "place"), (3, "space")):
        text = f"schema: {version}\n{field}: t\nchoices: {{a: x}}  # by hand\n"
        assert Genotype.parse(text) == expected
        path = tmp_path / f"{version}.yaml"
        path.write_text(text)
        assert upgrade(path) == version
        assert (path.read_text() == text) is (version == 3)
        assert path.read_text().startswith("schema: 3\n")
        assert Genotype.load(path) == expected
    with pytest.raises(InvalidFileError, match="g: has schema version 4; this package reads versions 1 to 3"):
        Genotype.parse("schema: 4\nspace: t\nchoices: {}", "g")
    with pytest.raises(InvalidFileError, match="g: unknown field 'where'"):
        Genotype.parse("schema: 2\nwhere: t\nchoices: {}", "g")


def test_upgrade_refuses_what_is_no_genotype(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("schema: 7\n")
    with pytest.raises(InvalidFileError, match=r"bad\.yaml: has schema version 7"):
        upgrade(tmp_path / "bad.yaml")
