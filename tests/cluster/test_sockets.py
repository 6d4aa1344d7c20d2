from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from cluster import listeners as command
from cluster.sockets import Listener, children, command_line, listeners


@pytest.mark.parametrize(
    ("family", "address", "shown", "is_open"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", False),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0", True),
        (socket.AF_INET6, "::", "::", True),
        (socket.AF_INET6, "::1", "::1", False),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1", False),
    ],
)
def test_a_listening_socket_is_found_with_its_address(
    family: socket.AddressFamily, address: str, shown: str, is_open: bool
) -> None:
    with socket.socket(family) as server:
        server.bind((address, 0))
        port = server.getsockname()[1]
        assert all(each.port != port for each in listeners([os.getpid()]))  # bound, and not listening yet
        server.listen()
        (found,) = [each for each in listeners([os.getpid()]) if each.port == port]
        assert found == Listener(shown, port, os.getpid())
        assert command.is_open(found) is is_open
        assert found in listeners()


def test_processes_are_found_by_parent_and_named() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in children()[os.getpid()]
        assert command_line(child.pid).endswith("-c input()")
        child.communicate(b"\n")
    assert command_line(2**22 + 1) == ""


def test_the_command_lists_ports_and_says_which_are_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ray_processes", lambda: {1})
    lines = {
        1: "/opt/python -u /opt/site-packages/ray/dashboard/agent.py --node-ip-address=127.0.0.1",
        2: "ray::ServeReplica:endpoint:gateway",
    }
    monkeypatch.setattr(command, "command_line", lines.__getitem__)
    found = [Listener("127.0.0.1", 8000, 1), Listener("::", 40000, 2)]
    monkeypatch.setattr(command, "listeners", lambda pids: found)
    with pytest.raises(SystemExit) as ended:
        command.main([])
    assert ended.value.code == 1
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        "127.0.0.1 8000 1 this machine only ray/dashboard/agent.py",
        ":: 40000 2 OPEN to other machines ray::ServeReplica:endpoint:gateway",
    ]
    del found[1]

    def interrupted(pids: set[int]) -> list[Listener]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "listeners", interrupted)
        with pytest.raises(SystemExit) as ended:
            command.main([])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "python -m cluster.listeners: interrupted\n"
    with pytest.raises(SystemExit) as ended:
        command.main(["--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == {
        "address": "127.0.0.1",
        "port": 8000,
        "pid": 1,
        "process": "ray/dashboard/agent.py",
        "open": False,
    }
