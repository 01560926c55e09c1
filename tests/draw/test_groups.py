"""Groups: their members, the pieces of edges that cross borders, parts without connection."""

from __future__ import annotations

from nas.draw.groups import IN, OUT, connected_parts, edges_by_group, members_by_group, path
from nas.graph.network_graph import Graph


def nested() -> Graph:
    """a -> (group g: b, (group h: c)) -> d, and e alone; in g, b -> c."""
    drawn = Graph()
    for name, group in {"a": "", "g": "", "b": "g", "h": "g", "c": "h", "d": "", "e": ""}.items():
        drawn.add_node(name, group=group)
    for edge in (("a", "b"), ("b", "c"), ("c", "d")):
        drawn.add_edge(*edge, label="-".join(edge))
    return drawn


def test_members() -> None:
    assert members_by_group(nested()) == {"": ["a", "g", "d", "e"], "g": ["b", "h"], "h": ["c"]}


def test_path() -> None:
    assert path(nested(), "c") == ["g", "h", "c"]
    assert path(nested(), "a") == ["a"]


def test_edges_have_a_piece_in_every_group_they_pass() -> None:
    found = edges_by_group(nested())
    assert {group: set(edges) for group, edges in found.items()} == {
        "": {("a", "g", "a\0b"), ("g", "d", "c\0d")},
        "g": {(f"{IN}a\0b", "b", "a\0b"), ("b", "h", "b\0c"), ("h", f"{OUT}c\0d", "c\0d")},
        "h": {(f"{IN}b\0c", "c", "b\0c"), ("c", f"{OUT}c\0d", "c\0d")},
    }


def test_only_edges_within_one_group_keep_their_attributes() -> None:
    drawn = nested()
    drawn.add_node("f", group="")
    drawn.add_edge("d", "f", label="kept")
    attributes = {piece[:2]: style for piece, style in edges_by_group(drawn)[""].items()}
    assert attributes == {("a", "g"): {}, ("g", "d"): {}, ("d", "f"): {"label": "kept"}}


def test_parts_are_in_the_order_of_their_first_names() -> None:
    assert connected_parts("abcdef", [("e", "a"), ("d", "b"), ("f", "d")]) == [["a", "e"], ["b", "d", "f"], ["c"]]
