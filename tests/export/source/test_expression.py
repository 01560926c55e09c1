"""Expressions as functions: what they build is what the plain expression builds."""

from __future__ import annotations

import ast
import itertools

import hypothesis.strategies as st
from hypothesis import given

from nas.export.source.expression import TALL, Builder, Call, Expression, Number

LEAVES = st.one_of(
    st.sampled_from(["True", "None", '"text"']),
    st.builds(Number, st.integers(0, 3), st.sampled_from(["in_channels", "size"])),
)
BRACKETS = {"make_something_long(": "first", "another_maker(": "second_5x5", "[": ""}
CALLS = st.recursive(
    LEAVES,
    lambda parts: st.builds(
        lambda opening, inside: Call(opening, tuple(("", part) for part in inside), BRACKETS[opening]),
        st.sampled_from(list(BRACKETS)),
        st.lists(parts, max_size=4),
    ),
    max_leaves=40,
)


def values(node: Expression) -> object:
    """What an expression stands for."""
    if isinstance(node, str):
        return ast.literal_eval(node)
    if isinstance(node, Number):
        return node.value
    return [node.opening, *(values(part) for _, part in node.parts)]


def run(builder: Builder) -> object:
    code = "\n".join([*builder.functions(), f"result = {builder.body()}"])
    makers = {
        name: (lambda *parts, name=name: [f"{name}(", *parts]) for name in ("make_something_long", "another_maker")
    }
    space: dict[str, object] = dict(makers)
    exec(f"from __future__ import annotations\n{code}", space)  # noqa: S102 - the code under test
    return space["result"]


def plain(value: object) -> object:
    """Lists of the language have no name in front."""
    if not isinstance(value, list):
        return value
    inside = [plain(each) for each in value[1:]]
    return inside if value[0] == "[" else [value[0], *inside]


@given(CALLS)
def test_functions_build_what_the_expression_says(node: Expression) -> None:
    root = Call("make_something_long(", (("", node), ("", node)), "root")
    numbers = itertools.count()
    assert run(Builder(root, lambda name: f"{name or 'made'}_{next(numbers)}")) == plain(values(root))


def layer(channels: int, kernel: int) -> Call:
    sizes = (
        ("", Number(channels, "in_channels")),
        ("", Number(channels, "out_channels")),
        ("", Number(kernel, "kernel_size")),
    )
    norm = Call("nn.BatchNorm2d(", (("", Number(channels, "num_features")),))
    return Call("nn.Sequential(", (("", Call("nn.Conv2d(", sizes)), ("", norm)), f"conv_{kernel}x{kernel}")


def test_numbers_that_vary_are_parameters() -> None:
    parts = tuple(("", layer(channels, kernel)) for channels, kernel in ((8, 3), (8, 3), (8, 3), (16, 5)))
    builder = Builder(Call("nn.Sequential(", parts), str)
    (function,) = builder.functions()
    assert function == (
        "def conv(in_channels: int, kernel_size: int) -> nn.Sequential:\n"
        "    return nn.Sequential(\n"
        "        nn.Conv2d(in_channels, in_channels, kernel_size),\n"
        "        nn.BatchNorm2d(in_channels),\n"
        "    )"
    )
    assert builder.body() == "nn.Sequential(*(conv(8, 3) for _ in range(3)), conv(16, 5))"


def test_a_single_number_of_channels_is_called_so() -> None:
    builder = Builder(Call("nn.Sequential(", (("", layer(8, 3)), ("", layer(16, 3)))), str)
    assert builder.functions()[0].startswith("def conv_3x3(channels: int) -> nn.Sequential:\n")


def test_long_bodies_are_divided() -> None:
    parts = []
    for i in range(8):
        inner = tuple(("", Call(f"a_layer_of_kind_{i}(", (("", f'"{"x" * 60}"'),))) for _ in range(2))
        parts.append(("", Call("nn.Sequential(", inner, f"part{i}")))
    builder = Builder(Call("nn.Sequential(", tuple(parts)), str)
    assert builder.body().count("\n") < TALL
    assert all(text.count("\n") < TALL for text in builder.functions())
    assert builder.functions()
