"""Strict YAML and atomic writing."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import msgspec
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from nas.errors import InvalidFileError, NASError, UnknownNameError, nearest
from nas.files import convert, dump_yaml, listed, parse_yaml, read_text, write_atomic, write_text

# Texts that some YAML reader takes for a number, a boolean, a date, nothing, a tag, a comment, a break, ...
ODD = [
    "1", "-1", "+1", "01", "08", "010", "0x1F", "0o17", "0b1", "1_000", "1e3", "1e-3", "1.", ".5", "1.5e+3", "-0",
    "12:30", "190:20:30", "1:2.5", "yes", "No", "on", "OFF", "true", "y", "n", "~", "null", "Null", "", " ", " a", "a ",
    ".inf", "-.INF", ".nan", "2001-01-01", "2001-01-01 10:00:00", "=", "<<", "!x", "&x", "*x", "%x", "@x", "`x", "#x",
    "a: b", "a #b", "- a", "? a", "|", ">", "[", "]", "{", "}", ",", "'", '"', "\\", "a\nb", "a\r\nb", "\t", "a\x85b",
    "a\u2028b", "\ufeffa", "\xa0", "\x07", "\x7f", "é", "漢字", "\U0001f600", "x" * 300, "word " * 60, "---", "...",
]  # fmt: skip

texts = st.text() | st.sampled_from(ODD)
integers = st.integers(-(2**63), 2**63 - 1)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | texts
plain = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12)


@given(plain)
def test_what_is_dumped_is_read_back(data: Any) -> None:
    loaded = parse_yaml(dump_yaml(data), "text")
    assert loaded == data
    assert str(loaded) == str(data)  # tells 1 from True and 1.0


def test_what_is_read_twice_is_two_objects() -> None:
    parse_yaml("a: [1]", "text")["a"].append(2)
    assert parse_yaml("a: [1]", "text") == {"a": [1]}


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_read_back_everywhere(text: str) -> None:
    data = {text: text, "list": [text, [text]], "map": {"key": {text: [text]}}}
    assert parse_yaml(dump_yaml(data), "text") == data


@given(integers | st.floats(allow_nan=False))
@example(1e-5)
@example(1e300)
@example(-0.0)
def test_numbers_are_the_same_to_any_yaml_reader(number: float) -> None:
    assert yaml.safe_load(dump_yaml({"a": number})) == {"a": number}


def test_tuples_become_lists_and_flat_lists_take_one_line() -> None:
    assert dump_yaml({"a": (1, 2), "b": [[1], [2]], "c": []}) == "a: [1, 2]\nb:\n- [1]\n- [2]\nc: []\n"


def test_the_order_of_keys_stays() -> None:
    assert list(parse_yaml(dump_yaml({"b": 1, "a": 2}), "text")) == ["b", "a"]


SCALARS = {
    "1e-3": 0.001, "1E5": 1e5, "-2.5e-3": -0.0025, ".5": 0.5, "1.": 1.0, ".inf": float("inf"), "-.inf": -float("inf"),
    "12": 12, "-7": -7, "0": 0, "true": True, "off": False, "~": None, "": None, "'-'": "-",
    **{t: t for t in ("010", "08", "0x10", "1_000", "16:16", "190:20:30", "2024-01-01", "1e", "e3")},
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_plain_scalars(text: str) -> None:
    found = parse_yaml(f"a: {text}", "text")["a"]
    assert (found, type(found)) == (SCALARS[text], type(SCALARS[text]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: c: d", "f.yaml:2: not valid YAML: mapping values are not allowed here"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3: not valid YAML: key 'a' is given twice"),
        ("x: {1: a, 1.0: b}", "f.yaml:1: not valid YAML: key '1.0' is given twice"),
        ("? [a]\n: 1", "f.yaml:1: not valid YAML: found unhashable key"),
        ("a: [1", "f.yaml:1: not valid YAML: "),
        ("a: !!python/object:os.system x", "f.yaml:1: not valid YAML: could not determine a constructor"),
        ("<<: {a: 1}", "f.yaml:1: not valid YAML: could not determine a constructor"),
        ("--- a\n--- b", "f.yaml:2: not valid YAML: but found another document"),
        ("a: &x [1]\nb: *x", "f.yaml:2: not valid YAML: aliases are not supported"),
        ("a: &x [*x]", "f.yaml:1: not valid YAML: aliases are not supported"),
        ("a: \x00", "f.yaml: not valid YAML: unacceptable character #x0000"),
        ("a: !!int x", "f.yaml: not valid YAML: a value does not fit its tag"),
        ("a: !!bool x", "f.yaml: not valid YAML: a value does not fit its tag"),
        ("a: !!timestamp x", "f.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: 1\nb: !!set {c}", "f.yaml:2: not valid YAML: could not determine a constructor"),
        ("a: !!binary aGk=", "f.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: !!omap [b: 1]", "f.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: " + "1" * 5000, "f.yaml:1: not valid YAML: an integer must have at most 64 bits"),
        ("a: 9223372036854775808", "f.yaml:1: not valid YAML: an integer must have at most 64 bits"),
        ("\na: -9223372036854775809", "f.yaml:2: not valid YAML: an integer must have at most 64 bits"),
        ("a: !!int 0x10", "f.yaml: not valid YAML: a value does not fit its tag"),
        ('a: "\\ud800"', "f.yaml:1: not valid YAML: a text has half a character"),
        ('"\\udc00b": 1', "f.yaml:1: not valid YAML: a text has half a character"),
        ("[" * 1000, "f.yaml: nested too deeply"),
    ],
)
def test_invalid_yaml_names_the_file_and_line(text: str, message: str) -> None:
    with pytest.raises(InvalidFileError) as error:
        parse_yaml(text, "f.yaml")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_escapes_of_json_are_whole_characters() -> None:
    for text in ("\U0001f600", "é", "a\u2028b"):
        assert parse_yaml(json.dumps({text: [text]}), "text") == {text: [text]}


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_integers_of_64_bits_are_read(number: int) -> None:
    assert parse_yaml(f"a: {number}", "text") == {"a": number}


def test_many_keys_take_time_that_grows_with_their_number() -> None:
    """At 4000 keys comparing each with all others took as long as the rest; both are timed, since machines differ."""
    times = []
    for count in (2_000, 16_000):
        text = "".join(f"k{i}: 1\n" for i in range(count))
        begun = time.process_time()
        assert len(parse_yaml(text, "text")) == count
        times.append(time.process_time() - begun)
    assert times[1] < 16 * times[0]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidFileError):
        parse_yaml(text, "text")


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    channels: int
    mode: Literal["a", "b"] = "a"
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    rates: dict[str, float] = {}
    layers: list[Inner] = []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {"channels": "x"}}, "f: inner.channels: Expected 'int', got 'str'"),
        ({"inner": {"chanels": 1}}, "f: inner: unknown field 'chanels' (did you mean 'channels'?)"),
        ({"inner": {"zzz": 1}}, "f: inner: unknown field 'zzz'"),
        ({"inner": {}}, "f: inner: missing the required field 'channels'"),
        ({"inner": {"channels": 1, "mode": "c"}}, "f: inner.mode: unknown value 'c'"),
        ({"inner": [1]}, "f: inner: Expected 'mapping', got 'list'"),
        ({"inner": {"channels": True}}, "f: inner.channels: Expected 'int', got 'bool'"),
        ({"inner": {"channels": 1}, "rates": {"a": "b"}}, "f: rates[...]: Expected 'float', got 'str'"),
        ({"inner": {"channels": 1}, "rates": {1: 0.5}}, "f: rates: Expected 'str', got 'int' as a key"),
        ({"inner": {"channels": 1}, "layers": [{"channels": 1}, {}]}, "f: layers[1]: missing the required field"),
        ({"inner": {"channels": 1, "share": 1.5}}, "f: inner.share must be at most 1, got 1.5"),
        ({"inner": {"channels": 1, "share": -1}}, "f: inner.share must be above 0, got -1"),
        ({"iner": {}}, "f: unknown field 'iner' (did you mean 'inner'?)"),
        ([], "f: Expected 'mapping', got 'list'"),
        (None, "f: Expected 'mapping', got 'null'"),
    ],
)
def test_convert_names_the_field(data: Any, message: str) -> None:
    with pytest.raises(InvalidFileError) as error:
        convert(data, Outer, "f")
    assert str(error.value).startswith(message)


def test_convert_gives_the_struct() -> None:
    assert convert({"inner": {"channels": 2}, "rates": {"a": 1}}, Outer, "f") == Outer(Inner(2), {"a": 1.0})


def test_read_text_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"abc\xff")
    with pytest.raises(InvalidFileError, match=r"binary: not a text file: .* at byte 3"):
        read_text(tmp_path / "binary")
    with pytest.raises(InvalidFileError, match="missing: cannot be read: No such file"):
        read_text(tmp_path / "missing")
    with pytest.raises(InvalidFileError, match="cannot be read: Is a directory"):
        read_text(tmp_path)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_written_text_is_read_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text"
    write_text(path, text)
    assert read_text(path) == text


def test_a_folder_is_made_for_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "file.txt", "text")
    assert (tmp_path / "a" / "b" / "file.txt").read_text() == "text"


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "other").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (OSError(28, "No space left on device"), InvalidFileError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("x"), ValueError),
    ],
)
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, failure: BaseException, expected: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"new")
        raise failure

    with pytest.raises(expected):
        write_atomic(path, write)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_old_file_stands_until_the_new_one_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def fsync(descriptor: int) -> None:
        synced = os.fstat(descriptor)
        seen.append((path.read_bytes(), "folder" if os.path.samestat(synced, tmp_path.stat()) else synced.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(path, lambda file: file.write(b"newer"))
    assert seen == [(b"old", 5), (b"newer", "folder")]


def test_new_folders_are_synced_in_those_that_hold_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write_text(path := tmp_path / "a" / "b" / "file", "")
    assert synced == [each.stat().st_ino for each in (tmp_path, tmp_path / "a", path, path.parent)]


@pytest.mark.parametrize(("number", "refused"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_folders_is_used(
    number: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InvalidFileError, match="file: cannot be written") if refused else nullcontext():
        write_text(tmp_path / "file", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidFileError, match=r"file/x: cannot be written: "):
        write_text(tmp_path / "file" / "x", "")
    with pytest.raises(InvalidFileError, match=r"folder: cannot be written: "):
        write_text(tmp_path / "folder", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_messages_are_short_and_printable() -> None:
    error = InvalidFileError(f"file.yaml: {'x' * 5_000_000}, expected less")
    assert len(str(error)) < 2100
    assert str(error).startswith("file.yaml: xxx")
    assert str(error).endswith("xxx, expected less")
    assert "[... 4,998,026 characters ...]" in str(error)
    assert str(UnknownNameError("label", "\x1b[31m\x07\ud800\u202e", [])).startswith(
        r"unknown label '\x1b[31m\x07\ud800\u202e'"
    )
    assert str(NASError("a\nb\tc é 漢")) == "a b c é 漢"
    assert str(NASError()) == ""


def test_unknown_names_suggest_the_nearest() -> None:
    error = UnknownNameError("colour", "gren", ["red", "green"], "or mix one")
    assert str(error) == "unknown colour 'gren' (did you mean 'green'?); known: red, green; or mix one"
    assert isinstance(error, NASError)
    assert isinstance(error, KeyError)
    assert str(UnknownNameError("colour", 1, [])) == "unknown colour '1'; known: none is registered"
    assert nearest("xyz", ["red"]) == ""


def test_folders_are_listed_without_what_desktops_leave(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden"):
        (tmp_path / name).touch()
    for name in ("clip", ".ipynb_checkpoints", "__MACOSX", ".git"):
        (tmp_path / name).mkdir()
    assert [path.name for path in listed(tmp_path)] == ["a.png", "b.png", "clip"]
    with pytest.raises(InvalidFileError, match="nowhere: no such folder"):
        listed(tmp_path / "nowhere")
    with pytest.raises(InvalidFileError, match=r"a\.png: cannot be listed: Not a directory"):
        listed(tmp_path / "a.png")
