"""A stand-in of the Hugging Face Hub's HTTP API on 127.0.0.1: repositories with commits, branches and gates."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "a" * 34


class Hub:
    """Repositories by kind ("models" or "datasets") and name."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[str] = []
        """Method and path of every request so far."""
        self._commits: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self._branches: dict[tuple[str, str], dict[str, str]] = {}
        self._gated: set[tuple[str, str]] = set()

    def commit(self, kind: str, name: str, folder: Path, branch: str = "main", gated: bool = False) -> str:
        """Makes the content of `folder` the newest commit of a branch; returns the commit's hash."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        commit = hashlib.sha1(b"".join(sorted(name.encode() + content for name, content in files.items()))).hexdigest()
        self._commits.setdefault((kind, name), {})[commit] = files
        self._branches.setdefault((kind, name), {})[branch] = commit
        if gated:
            self._gated.add((kind, name))
        return commit

    def answer(self, method: str, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the reply to a request."""
        self.requests.append(f"{method} {path}")
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if parts[0] == "api":
            kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
        else:
            kind = "datasets" if parts[0] == "datasets" else "models"
            parts = parts[1:] if kind == "datasets" else parts
            name, rest = "/".join(parts[:2]), parts[2:]
        if (kind, name) not in self._commits:
            return self._error(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self._branches[kind, name].get(revision, revision)
        if commit not in self._commits[kind, name]:
            return self._error(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        files = self._commits[kind, name][commit]
        if parts[0] == "api" and rest[:1] == ["tree"]:
            return self._json([{"type": "file", "path": file, "size": len(content), "oid": _oid(content)} for file, content in files.items()])  # fmt: skip
        if parts[0] == "api":
            siblings = [{"rfilename": file} for file in files]
            return self._json({"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip
        if (kind, name) in self._gated and token != f"Bearer {TOKEN}":
            return self._error(HTTPStatus.UNAUTHORIZED, "GatedRepo")
        file = "/".join(rest[2:])
        if file not in files:
            return self._error(HTTPStatus.NOT_FOUND, "EntryNotFound")
        headers = {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        return HTTPStatus.OK, headers, files[file]

    def _error(self, status: HTTPStatus, code: str) -> tuple[int, dict[str, str], bytes]:
        return status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}"

    def _json(self, content: object) -> tuple[int, dict[str, str], bytes]:
        return HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(content).encode()


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Variables of a process that uses `hub`, with its cache in `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**inherited, "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that answers until the context ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.command, self.path, self.headers.get("Authorization", ""))
            start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
            if status == HTTPStatus.OK and int(start):
                status, body = HTTPStatus.PARTIAL_CONTENT, body[int(start) :]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
