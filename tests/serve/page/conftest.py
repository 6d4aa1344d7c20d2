"""What tests of the chat page start from: a tab that shows it, and a stub of the endpoint that a test answers by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from select import select
from threading import Event, Thread
from typing import Any

import pytest

from benchmarks.pictures.browser import PATIENCE_S, Chromium, Page

FILES = Path(__file__).resolve().parents[3] / "serve" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Call:
    """A chat request that arrived. The test says, piece by piece, what the stub answers."""

    def __init__(self, body: dict[str, Any], authorization: str | None) -> None:
        self.body = body
        self.authorization = authorization
        self._gone = Event()
        self.pieces: Queue[bytes | None] = Queue()  # None ends the response

    def hung_up(self) -> None:
        self._gone.set()

    def was_aborted(self) -> bool:
        """Whether the reader hangs up before the answer has ended; waits for it."""
        return self._gone.wait(PATIENCE_S)

    def say(self, text: str) -> None:
        self.pieces.put(_event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}))

    def finish(self, reason: str = "stop", tokens: int = 1) -> None:
        self.pieces.put(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
        self.pieces.put(_event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}}))
        self.pieces.put(b"data: [DONE]\n\n")
        self.pieces.put(None)


class Stub(ThreadingHTTPServer):
    """Serves the real page, a list of models, and chat answers that tests write; not a model in sight."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.models = ["sft", "ppo"]
        self.key: str | None = None  # the one that requests have to carry
        self.refusals: Queue[tuple[int, str, dict[str, str]]] = Queue()  # one for each of the next chat requests
        self.provoked: set[str] = set()  # what the browser's console may say because the test made it happen
        self.missing: list[str] = []  # paths that were asked for and are not there
        self._calls: Queue[Call] = Queue()

    def call(self) -> Call:
        """The next chat request."""
        return self._calls.get(timeout=PATIENCE_S)

    def calls(self, count: int) -> dict[str, Call]:
        """The next requests, by their model."""
        return {call.body["model"]: call for call in (self.call() for _ in range(count))}

    def idle(self) -> bool:
        return self._calls.empty()

    def refuse(self, status: int, message: str, **headers: str) -> None:
        """Answer the next chat request with this error."""
        self.refusals.put((status, message, headers))


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        file = FILES / ("index.html" if self.path == "/" else Path(self.path).name)
        if self.path == "/v1/models":
            if self._has_key():
                cards = [{"id": name, "task": "chat"} for name in self.server.models] + [
                    {"id": "judge", "task": "score"}
                ]
                self._reply(200, {"object": "list", "data": cards})
        elif (self.path == "/" or self.path.startswith("/page/")) and file.is_file():
            self._start(200, TYPES[file.suffix])
            self.wfile.write(file.read_bytes())
        else:
            self.server.missing.append(self.path)
            self._reply(404, _error(404, "not here"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._has_key():
            return
        try:
            status, message, headers = self.server.refusals.get_nowait()
        except Empty:
            call = Call(body, self.headers["Authorization"])
            self.server._calls.put(call)
            self._stream(call)
        else:
            self._reply(status, _error(status, message), headers)

    def _stream(self, call: Call) -> None:
        self._start(200, "text/event-stream")
        while True:
            if select([self.connection], [], [], 0)[0]:  # nothing more is sent on it, so this is its end
                call.hung_up()
                return
            try:
                piece = call.pieces.get(timeout=0.02)
            except Empty:
                continue
            if piece is None:
                return
            self.wfile.write(piece)

    def _has_key(self) -> bool:
        if self.server.key is None or self.headers["Authorization"] == f"Bearer {self.server.key}":
            return True
        self._reply(401, _error(401, "a valid API key is needed"))
        return False

    def _reply(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        if status >= 400:
            self.server.provoked.add(f"responded with a status of {status}")
        self._start(status, "application/json", headers)
        self.wfile.write(json.dumps(body).encode())

    def _start(self, status: int, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("X-Request-Id", f"req-{status}")
        for name, value in (headers or {}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test's output is the test's."""


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": status}}


class Chat(Page):
    """A tab that shows the chat page."""

    def open(self, url: str) -> None:
        self.command("Page.navigate", url=url)
        self.until("document.querySelector('#model-a:enabled, #key-form:not([hidden]), .error') !== null")

    def ask(self, prompt: str) -> None:
        self.evaluate("document.getElementById('message').focus()")
        self.write(prompt)
        self.press("Enter")

    def wait_for_text(self, text: str, column: str = "A") -> None:
        """Wait until the newest answer in a column is exactly this."""
        answer = f".turn:last-child .answer[data-column={column}] .text"
        self.until(f"document.querySelector('{answer}')?.textContent === {json.dumps(text)}")

    def wait_for_end(self) -> None:
        self.until("!document.getElementById('send').hidden")


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def open_page(chromium: Chromium, stub: Stub) -> Iterator[Callable[..., Chat]]:
    """Opens the page in a new tab: its width and height, the browser's language, and "light" or "dark".

    At the end of a test the console must hold nothing but what the test provoked.
    """
    pages: list[Chat] = []

    def opened(*, width: int = 1280, height: int = 800, language: str = "en-US", scheme: str = "light") -> Chat:
        page = Chat(chromium, width, height, language, scheme)
        pages.append(page)
        page.open(stub.url)
        return page

    yield opened
    complaints = [line for page in pages for line in page.complaints()]
    for page in pages:
        page.close()
    assert [line for line in complaints if not any(reason in line for reason in stub.provoked)] == []
    assert stub.missing == []
