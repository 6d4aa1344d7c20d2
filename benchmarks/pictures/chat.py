"""Screenshots of the chat page while it compares two models, with a real endpoint and headless Chromium."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.pictures.browser import PROGRAMS, Chromium, Page, running
from configs.errors import ConfigError

QUESTION = "高血压病人平时要注意什么？"
WIDTH, HEIGHT = 1120, 560
START_S, ANSWER_S = 600.0, 120.0


def photograph(models: Mapping[str, Path], out: Path) -> Iterator[Path]:
    """Asks two models the same question on the chat page at temperature 0; yields the screenshots in `out`.

    Raises:
        ConfigError: there is no Chromium, or the endpoint did not start.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise ConfigError(f"--chat needs a browser: install one of {', '.join(PROGRAMS)}")
    with (
        _endpoint(models) as url,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        running(program, Path(profile)) as chromium,
    ):
        for scheme in ("light", "dark"):
            yield _screenshot(chromium, url, scheme, out / f"chat-{scheme}.png")


def _screenshot(chromium: Chromium, url: str, scheme: str, path: Path) -> Path:
    page = Page(chromium, WIDTH, HEIGHT, "zh-CN", scheme)
    try:
        page.command("Emulation.setScrollbarsHidden", hidden=True)
        page.command("Page.navigate", url=url)
        page.until("document.querySelector('#model-a')?.disabled === false")
        page.evaluate("document.getElementById('settings').showModal()")
        page.evaluate("document.getElementById('temperature').value = 0")
        page.evaluate("document.getElementById('settings').close()")
        page.click("#compare")
        page.click("#message")
        page.write(QUESTION)
        page.click("#send")
        deadline = time.monotonic() + ANSWER_S
        while not page.evaluate("document.getElementById('stop').hidden && !!document.querySelector('#turns > *')"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {ANSWER_S:g} s for the responses on the chat page")
            time.sleep(0.2)
        path.write_bytes(base64.b64decode(page.command("Page.captureScreenshot", format="png")["data"]))
    finally:
        page.close()
    return path


@contextmanager
def _endpoint(models: Mapping[str, Path]) -> Iterator[str]:
    """Serves `models` on this machine inside the block; yields the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    named = ",".join(f"{name}={folder.resolve()}" for name, folder in models.items())
    command = [sys.executable, "-m", "serve", f"model={named}", f"--port={port}", "replicas.cpus=0.5"]
    url = f"http://127.0.0.1:{port}/"
    with subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": "local"}) as process:
        try:
            deadline = time.monotonic() + START_S
            while not _ready(url):
                if process.poll() is not None:
                    raise ConfigError(f"the endpoint ended with status {process.returncode}, see its output above")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"waited {START_S:g} s for {url}ready")
                time.sleep(1)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=120)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False
