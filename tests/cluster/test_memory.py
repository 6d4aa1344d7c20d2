from __future__ import annotations

import os
import subprocess
import sys
import time

from cluster.memory import PeakMemory, process_bytes, status_bytes

MIB = 2**20
HOLD_64_MIB = "x = bytearray(64 * 2**20); x[::4096] = b'1' * len(x[::4096]); print('held', flush=True); input()"


def hold(*command: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([*command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def let_go(child: subprocess.Popen[str]) -> None:
    child.communicate("\n", timeout=30)


def test_children_count_while_they_live_and_the_peak_stays():
    with PeakMemory(seconds=60) as memory:
        before = memory.sample()
        child = hold(sys.executable, "-c", HOLD_64_MIB)
        during = memory.sample()
        let_go(child)
        after = memory.sample()
    assert 64 * MIB <= during - before < 100 * MIB
    assert after < during - 60 * MIB
    assert memory.peak_bytes == during


def test_a_daemon_that_left_the_tree_counts():
    with PeakMemory(seconds=60) as memory:
        before = memory.sample()
        # The shell in between ends at once, and its child goes to another parent and session.
        code = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\nos.execv({sys.executable!r}, ['python', '-c', {HOLD_64_MIB!r}])"
        child = hold(sys.executable, "-c", code)
        child.wait(timeout=30)
        assert memory.sample() - before >= 64 * MIB
        assert child.stdin is not None
        child.stdin.close()


def test_processes_of_others_do_not_count():
    with PeakMemory(seconds=60) as memory:
        members = memory._members()
    assert os.getpid() in members
    assert os.getppid() not in members


def test_the_thread_samples_and_the_mark_is_removed():
    names = set(os.environ)
    with PeakMemory(seconds=0.05) as memory:
        child = hold(sys.executable, "-c", HOLD_64_MIB)
        time.sleep(0.3)
        let_go(child)
    assert memory.peak_bytes >= 64 * MIB
    assert set(os.environ) == names


def test_a_process_that_is_gone_uses_nothing():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_bytes(child.pid) == 0
    assert status_bytes(child.pid, "RssAnon") == 0


FILLED_AND_MAPPED = """
import mmap, os, sys
from cluster.memory import status_bytes
def sizes():
    return [status_bytes(os.getpid(), field) for field in ("RssAnon", "RssFile", "RssShmem", "VmHWM")]
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    before = sizes()
    filled = bytearray(b"1" * (32 * 2**20))
    assert sum(mapped[::4096])  # every page is there
    print(*(after - earlier for after, earlier in zip(sizes(), before)))
"""


def test_anonymous_memory_is_what_a_process_filled_not_what_it_mapped(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"1" * 64 * MIB)
    command = [sys.executable, "-c", FILLED_AND_MAPPED, str(file)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    anonymous, files, shared, peak = (int(size) / MIB for size in told.stdout.split())
    assert 32 <= anonymous < 40
    assert 60 <= files + shared < 72  # shared: where the folder is in memory
    assert 90 <= peak < 144  # also what was filled for a moment, to be copied


FREED_BUT_KEPT = """
from cluster.memory import resident_bytes, return_free_memory
blocks = [b'1' * 100_000 for _ in range(1000)]  # too small to be mapped one by one
last = blocks[-1]  # what stands below it cannot go by itself
del blocks
kept = resident_bytes()
return_free_memory()
print(kept - resident_bytes())
"""


def test_freed_memory_goes_back_to_the_machine():
    given_back = subprocess.run(
        [sys.executable, "-c", FREED_BUT_KEPT], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert int(given_back.stdout) > 80 * MIB
