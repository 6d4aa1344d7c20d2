from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.connect import connect, signals_held
from cluster.ray_internals import messages_in_the_log
from configs.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
HERE = """
import os, sys, ray
from cluster.connect import connect
from configs.errors import one_line_errors
with one_line_errors("here"), connect(num_cpus=2) as cluster:
    @ray.remote
    def there():
        import chimed.commands
        return [os.environ.get(name) for name in ("CHIMED_RUNS", "OMP_WAIT_POLICY", "RAY_TRAIN_V2_ENABLED")]
    print(ray.get_runtime_context().gcs_address, cluster.started_here, *ray.get(there.remote()), flush=True)
    input()
"""


WAITING_FOR_RAY = "ray.wait([ray.remote(lambda: __import__('time').sleep(60)).remote()])"


def start(folder: Path, waiting: str = "input()", **environment: str) -> subprocess.Popen[str]:
    """A driver that connects as the environment says, prints what it sees, and waits."""
    return subprocess.Popen(
        [sys.executable, "-c", HERE.replace("input()", waiting)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
    )


def shown(address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `python -m cluster.status` prints."""
    command = [sys.executable, "-m", "cluster.status", "--address", address]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd=ROOT, timeout=60)


def listening(pids: set[int]) -> set[str]:
    """The addresses, as /proc writes them, on which any of these processes accepts TCP connections."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:"):
                sockets.add(target[8:-1])
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def descendants(pid: int) -> set[int]:
    children = {
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in task.joinpath("children").read_text().split()
    }
    return {pid}.union(*(descendants(child) for child in children))


@pytest.mark.slow
def test_a_cluster_of_its_own_is_on_loopback_only_and_ends_with_its_driver(tmp_path):
    (tmp_path / "chimed.py").write_text("raise ImportError('a module of the user, and not the package')")
    began = time.monotonic()
    driver = start(tmp_path, RAY_ADDRESS="local")
    assert driver.stdout is not None
    line = driver.stdout.readline().split()
    assert line[0].startswith("127.0.0.1:")
    assert line[1:] == ["True", os.environ["CHIMED_RUNS"], "PASSIVE", "1"]
    assert time.monotonic() - began < 60
    family = descendants(driver.pid)
    assert len(family) > 4
    # A signal to the driver's process group, as from a terminal or `timeout`, reaches the driver alone.
    assert [pid for pid in family if os.getpgid(pid) == os.getpgid(driver.pid)] == [driver.pid]
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert listening(family) <= loopback
    out, err = driver.communicate("\n", timeout=60)
    assert (out, err, driver.returncode) == ("", "", 0)
    deadline = time.monotonic() + 20
    while left := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "told"),
    [
        (
            signal.SIGINT,
            130,
            [
                "interrupted: ending as soon as Ray has started; press Ctrl-C again to end at once",
                "here: interrupted",
            ],
        ),
        (signal.SIGTERM, 75, ["SIGTERM: ending as soon as Ray has started", "ended by SIGTERM"]),
    ],
)
def test_a_signal_while_ray_starts_ends_without_a_crash(
    number: signal.Signals, status: int, told: list[str], tmp_path: Path
) -> None:
    driver = start(tmp_path, RAY_ADDRESS="local")
    deadline = time.monotonic() + 60
    while len(descendants(driver.pid)) < 2:  # `ray.init` has started its first process
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver.send_signal(number)
    out, err = driver.communicate(timeout=60)
    assert (out, err.splitlines(), driver.returncode) == ("", told, status)


@pytest.mark.slow
@pytest.mark.parametrize("waiting", ["input()", WAITING_FOR_RAY], ids=["for a line", "for Ray"])
def test_sigterm_while_connected_ends_with_status_75_and_leaves_no_process(tmp_path: Path, waiting: str) -> None:
    driver = start(tmp_path, waiting, RAY_ADDRESS="local")
    assert driver.stdout is not None
    driver.stdout.readline()
    family = descendants(driver.pid)
    assert family
    time.sleep(0.5)  # the driver waits by then
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=60)
    assert (err, driver.returncode) == ("ended by SIGTERM\n", 75)
    deadline = time.monotonic() + 30
    while left := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_sigterm_twice_ends_the_process_at_the_end_of_the_block() -> None:
    """As `timeout` sends it: to the command, then to its process group."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(75)

    def work() -> None:
        with signals_held("it is done"):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            reached.append("the end")

    reached: list[str] = []
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit) as stopped:
            work()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (stopped.value.code, reached) == (75, ["the end"])


def test_an_interrupt_waits_for_the_end_of_the_block(caplog: pytest.LogCaptureFixture) -> None:
    reached = []

    def work() -> None:
        with signals_held("it is done"):
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["the end"]
    told = ["interrupted: ending as soon as it is done; press Ctrl-C again to end at once"]
    assert [record.getMessage() for record in caplog.records] == told
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_ignores_interrupts_still_does() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_held("it is done"):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_joining_a_cluster_with_a_token(tmp_path):
    token = {"RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    head = start(tmp_path, RAY_ADDRESS="local", RAY_AUTH_MODE="token", **token)
    assert head.stdout is not None
    address = head.stdout.readline().split()[0]
    joined = {"RAY_ADDRESS": address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_WAIT_POLICY": "ACTIVE"}
    try:
        wrong = start(tmp_path, **joined, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        out, err = wrong.communicate(timeout=60)
        assert wrong.returncode == 2
        assert out == ""
        assert err.startswith(f"here: error: the Ray cluster at RAY_ADDRESS={address} asks for a token")
        assert err.count("\n") == 1
        right = start(tmp_path, **joined, RAY_AUTH_MODE="token", **token)
        out, err = right.communicate("\n", timeout=60)
        assert out.split() == [address, "False", os.environ["CHIMED_RUNS"], "ACTIVE", "1"]
        assert err == ""
        assert head.poll() is None
        status = shown(address, RAY_AUTH_MODE="token", **token)
        assert (status.returncode, status.stderr) == (0, "")
        assert status.stdout.startswith(f"no runs on the cluster at {address}\n")
        status = shown(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        assert (status.returncode, status.stdout) == (2, "")
        assert f"the Ray cluster at --address {address} asks for a token" in status.stderr
    finally:
        head.communicate("\n", timeout=60)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "is not the address of a Ray head: give HOST:PORT"),
        ("ray://127.0.0.1:10001", "is not the address of a Ray head: give HOST:PORT"),
        ("head", "is not the address of a Ray head: give HOST:PORT"),
        ("127.0.0.1:1", r"^no Ray cluster responds at RAY_ADDRESS=127.0.0.1:1 \(.*refused.*\); start one there"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_seconds(tmp_path, address, message):
    began = time.monotonic()
    driver = start(tmp_path, RAY_ADDRESS=address)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 2
    assert out == ""
    assert re.search(message, err.removeprefix("here: error: "))
    assert err.count("\n") == 1
    assert time.monotonic() - began < 60


def test_a_temporary_folder_too_long_for_sockets_is_refused(tmp_path):
    driver = start(tmp_path, RAY_ADDRESS="local", RAY_TMPDIR="/tmp/" + "x" * 40)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 2
    assert err.startswith("here: error: RAY_TMPDIR=/tmp/xxxx")


@pytest.mark.slow
def test_a_connection_that_exists_is_used_and_left(ray_cluster):
    import ray

    with connect(num_cpus=1) as cluster:
        assert not cluster.started_here
        assert cluster.session_dir.is_dir()
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 8


def test_a_cluster_that_does_not_come_up_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does on a machine that is overloaded

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr("cluster.connect.for_local_cluster", dict)
    monkeypatch.setattr("ray.init", late)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests' cluster is not asked, and not ended
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with (
        pytest.raises(ConfigError, match=r"^Ray cannot start here: The current node timed out during startup\.$"),
        connect(),
    ):
        pass


def test_what_ray_reports_to_a_driver_is_logged_and_not_printed(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from ray._private import worker

    class Reports:
        """Stands for the head, which has one report for this driver and then ends."""

        def __init__(self) -> None:
            self.reports = [{"job_id": None, "error_message": "no node can run task 7"}]

        def subscribe(self) -> None: ...

        def poll(self) -> tuple[None, dict[str, str | None]]:
            if not self.reports:
                raise ConnectionError
            return None, self.reports.pop()

    driver = SimpleNamespace(gcs_error_subscriber=Reports(), current_job_id=worker.JobID.from_int(1))
    with messages_in_the_log():
        worker.listen_error_messages(driver, threading.Event())
        worker.print_to_stdstream({"pid": 7, "ip": "127.0.0.1", "lines": ["an actor's line"], "is_err": False}, False)
    assert [record.message for record in caplog.records if record.name.startswith("cluster")] == [
        "Ray: no node can run task 7"
    ]
    out = capsys.readouterr().out
    assert "task 7" not in out
    assert "an actor's line" in out
