"""On-disk cache of model results, so that an interrupted evaluation can resume.

Requests are sent in chunks of a fixed size, and a chunk is stored completely or not at all. A resumed run therefore
has the same batches as an uninterrupted one, and its results are bit-identical.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import ConfigError
from storage.durable import make_folder, writing

CHUNK = 256

Request = TypeVar("Request")


class ResultCache:
    """A JSON Lines file with one line per chunk: `{"chunk": digest of the requests, "answers": [...]}`."""

    def __init__(self, path: Path) -> None:
        """Reads the file if it exists.

        An incomplete last line, left by a crash, is removed, and its chunk is requested again.

        Raises:
            DiskError: the folder cannot be created.
            ConfigError: the file is damaged before its last line.
        """
        self.path = path
        self.recalled = 0
        """Number of results read from the cache instead of requested from the model."""
        self._known: dict[str, list[Any]] = {}
        make_folder(path.parent)
        if path.exists():
            self._read()

    def through(
        self,
        what: Sequence[Any],
        requests: Sequence[Request],
        ask: Callable[[Sequence[Request]], list[Any]],
        size: int = CHUNK,
    ) -> list[Any]:
        """Returns the results of `requests`, in order; calls `ask` only for chunks that are not cached.

        Args:
            what: everything else that the results depend on (the model and the settings), as JSON values.
            requests: the requests, as JSON values.
            ask: computes the results of one chunk, as JSON values.
            size: number of requests per chunk.

        Raises:
            DiskError: the results cannot be written.
        """
        answers: list[Any] = []
        for start in range(0, len(requests), size):
            chunk = requests[start : start + size]
            digest = _digest([what, chunk])
            if digest in self._known:
                self.recalled += len(chunk)
            else:
                self._keep(digest, ask(chunk))
            answers += self._known[digest]
        return answers

    def close(self) -> None:
        """Deletes the file, once the evaluation is complete and its results are stored elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                kept = json.loads(line)
                self._known[kept["chunk"]] = kept["answers"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ConfigError(f"{self.path}:{number}: damaged ({error}); delete the file to start again") from error
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))

    def _keep(self, digest: str, answers: list[Any]) -> None:
        line = json.dumps({"chunk": digest, "answers": answers}, ensure_ascii=False) + "\n"
        with writing(self.path), self.path.open("ab") as file:
            file.write(line.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())
        self._known[digest] = json.loads(line)["answers"]  # the same JSON round trip as in a resumed run


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
