"""`python -m serve`: what it refuses before anything starts, and a whole life of an endpoint on loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from heads import free_port

from cluster.listeners import is_open
from cluster.sockets import children, command_line, listeners
from configs.errors import ConfigError
from serve.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["engine.max_model_len=256", "engine.kv_cache_bytes=67108864", "replicas.threads=1", "replicas.cpus=0.5"]
KEY = "a-key-for-this-test"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which `python -m serve` refuses the arguments."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("python -m serve: error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "model=DIR is required"),
        (["runs/ppo/model"], "'runs/ppo/model' is not key=value: give e.g. model=runs/ppo/model"),
        (["org/model"], "'org/model' is not key=value: give e.g. model=org/model"),
        (["modle=a"], "modle=a: serve.modle: no such key; did you mean 'model'?"),
        (["model=a", "model=b"], "model= is given twice"),
        (["model=a", "wieghts=b"], "wieghts=b: serve.wieghts: no such key; did you mean 'weights'?"),
        (["model=a/b=runs/x/model"], "model=a/b=runs/x/model: 'a/b' cannot be a model's name"),
        (["model=a b=runs/x/model"], "model=a b=runs/x/model: 'a b' cannot be a model's name"),
        (["model=a?b=runs/x/model"], "model=a?b=runs/x/model: 'a?b' cannot be a model's name"),
        (["model=..=runs/x/model"], "model=..=runs/x/model: '..' cannot be a model's name"),
    ],
)
def test_arguments_that_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.__main__.serve_until_stopped", lambda *_: pytest.fail("something started"))
    assert refusal(capsys, *arguments, "--port", str(free_port())).startswith(message)


def test_help_lists_options_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert re.search(r"^  weights  str \(default \"\"\)$", out, re.MULTILINE)
    assert re.search(r"^  replicas\.cpus  float > 0 \(default 1\.0\)$", out, re.MULTILINE)
    assert all(option in out for option in ("--host", "--port", "--timeout", "--insecure"))


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr("serve.__main__.serve_until_stopped", lambda *_: pytest.fail("something started"))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))  # as Serve's proxies listen
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        server.listen()
        line = refusal(capsys, "model=x", "--port", str(port))
        assert line.startswith(f"port {port} of 127.0.0.1 is in use by process {os.getpid()} (")
        line = refusal(capsys, "model=x", "--port", str(port), "--host", "0.0.0.0")
        assert line.startswith(f"port {port} of 0.0.0.0 is in use by process {os.getpid()} (")


def test_a_bound_port_without_connections_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # bound, and does not listen yet
        port = server.getsockname()[1]
        assert refusal(capsys, "model=x", "--port", str(port)).startswith(f"cannot listen at 127.0.0.1, port {port} (")


def test_more_than_the_machine_has_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make_model: Callable[..., Path]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr("cluster.preflight.capacity.os.cpu_count", lambda: 2)
    models = f"model=x={make_model('a')},y={make_model('b', seed=1)}"
    judge = f"reward_model=judge={make_model('judge', seed=3, reward=True)}"
    line = refusal(capsys, models, judge, "engine.max_model_len=256", "--port", str(free_port()))
    assert line.startswith(
        "the endpoint needs 2.75 CPU (gateway 0.25 CPU; engine:x 1 CPU; engine:y 1 CPU; scorer:judge 0.5 CPU) "
        "and the cluster has 2: lower replicas.cpus"
    )


@contextmanager
def served(*arguments: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """`python -m serve`, ended by its process id."""
    environment = {**os.environ, "RAY_ADDRESS": "local", "CHIMED_API_KEYS": KEY}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve", *arguments],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def family(pid: int) -> set[int]:
    found, pending, known = set(), [pid], children()
    while pending:
        found.add(each := pending.pop())
        pending += known.get(each, [])
    return found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_from_start_to_stop(
    make_model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, newer, port = make_model("a"), make_model("b", seed=1), free_port()
    given, log = [f"model=tiny={model}", *SMALL], tmp_path / "serve.txt"
    url = f"http://127.0.0.1:{port}"

    def again(*arguments: str) -> tuple[object, str, str]:
        """Exit status, output, and errors of the command in this process, which has imported everything already."""
        capsys.readouterr()
        status: object = 0
        try:
            main([*arguments, "--port", str(port)])
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    def replicas() -> set[int]:
        return {pid for pid in family(process.pid) if command_line(pid).startswith("ray::ServeReplica")}

    with served(*given, "--port", str(port), log=log) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.match(rf"python -m serve: ready after \d+ s at {url} ", line), (line, log.read_text())
        assert "engine:tiny 0 of 1 ready (1 starting), gateway" in log.read_text()
        assert not re.search(r"\bINFO\b(?! serve: )", log.read_text())  # nothing of Ray's own start
        ready = httpx.get(f"{url}/ready", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        assert ready.status_code == 200
        found = listeners(family(process.pid))
        assert {each.port for each in found} >= {port}
        assert [each for each in found if is_open(each)] == []
        before = replicas()
        assert len(before) == 2

        status, _, error = again(*given)
        assert (status, error.count("\n")) == (2, 1)
        assert f"port {port} is the running endpoint's (process {process.pid}, model=tiny={model})" in error
        status, _, error = again(f"model=tiny={newer}", *SMALL)
        assert (status, error.count("\n")) == (2, 1)
        assert "model differ" in error

        assert again(*given, f"weights={newer}") == (
            0,
            f"python -m serve: the endpoint at port {port} now has weights={newer}\n",
            "",
        )
        assert replicas() == before  # no process was replaced
        assert f"weights={newer} after" in log.read_text()
        status, _, error = again(*given, f"weights={make_model('deeper', num_hidden_layers=3)}")
        assert status == 1
        assert "is not of the architecture of" in error
        everyone = family(process.pid)
    assert process.returncode == 0
    assert log.read_text().splitlines()[-1].endswith(" INFO serve: shutting down")
    deadline = time.monotonic() + 30
    while left := [pid for pid in everyone if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, [command_line(pid) for pid in left]
        time.sleep(0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


def test_names_that_routes_can_carry() -> None:
    from serve.names import require_name

    for name in ("ppo", "Qwen3-0.6B", "m.1", "中文模型", "a" * 64):
        require_name(name, "model")
    for name in ("", "a/b", "a b", "-a", ".a", "..", "a\n", "a" * 65, "a#b", "a?b", "a%2f"):
        with pytest.raises(ConfigError, match=r"^model: .* cannot be a model's name"):
            require_name(name, "model")
