"""Nothing connects to anything but this machine: not a search, a retraining, a report or a prediction."""

from __future__ import annotations

import functools
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Nas = Callable[..., Any]
EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
_watching: list[list[str]] = []
"""Where attempts are recorded; empty outside of these tests."""


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Record and refuse what leaves the machine. Python cannot remove a hook, so it does nothing outside of tests."""
    if not _watching or event not in EVENTS:
        return
    address = arguments[0] if event.startswith("socket.get") else arguments[1]
    host = address[0] if isinstance(address, tuple) else address
    if event != "socket.getaddrinfo" and getattr(arguments[0], "family", None) == getattr(socket, "AF_UNIX", None):
        return
    if not _is_local(str(host)):
        _watching[-1].append(f"{event} {host}")
        raise PermissionError(f"{event} {host}")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "None", "")


@functools.cache
def _hook() -> None:
    sys.addaudithook(_watch)


@pytest.fixture
def attempts() -> Iterator[list[str]]:
    """The connections that were attempted, and refused."""
    _hook()
    _watching.append([])
    yield _watching[-1]
    _watching.pop()


def test_nothing_leaves_the_machine(attempts: list[str], nas: Nas, tmp_path: Path) -> None:
    search, net = tmp_path / "search", tmp_path / "net"
    commands = [
        ("search", "toy", "search.steps=4", "search.epochs=2", "--out", search, "--quiet"),
        (
            "retrain",
            search,
            "retrain.stages.backbone.steps=2",
            "retrain.stages.averaging.steps=1",
            "--out",
            net,
            "--quiet",
        ),
        ("evaluate", net),
        ("report", search, net, "--out", tmp_path / "comparison.html"),
        ("export", net, "--format", "safetensors"),
        ("derive", search),
        ("doctor", tmp_path),
        ("models",),
    ]
    for command in commands:
        assert nas(*command).code == 0, command
    assert attempts == []


def test_a_connection_would_be_seen_and_one_to_this_machine_is_none(attempts: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    assert attempts == []
    for host in ("192.0.2.1", "example.invalid"):
        with pytest.raises(PermissionError):
            socket.create_connection((host, 9), timeout=1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, pytest.raises(PermissionError):
        sender.sendto(b"", ("192.0.2.1", 9))
    assert attempts == ["socket.getaddrinfo 192.0.2.1", "socket.getaddrinfo example.invalid", "socket.sendto 192.0.2.1"]
