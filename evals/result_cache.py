"""What a model has answered so far, kept on disk: an evaluation that was killed goes on where it was.

Requests are asked for in chunks of a fixed size, and a chunk is kept as a whole or not at all. So a run that goes on
asks in the same company as one that was never interrupted, and computes the same numbers to the last bit.
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
    """One file of JSON lines: `{"chunk": digest of the requests, "answers": [...]}`."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; a last line that a crash cut short is dropped, and asked for again.

        Raises:
            DiskError: the folder cannot be made.
            ConfigError: the file is damaged elsewhere than at its end.
        """
        self.path = path
        self.recalled = 0
        """Answers that were taken from the disk, not from the model."""
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
        """The answers to `requests`, in order, those that are known without asking.

        Args:
            what: everything that the answers depend on beside the requests, as JSON: the model, the settings.
            requests: JSON values.
            ask: answers a chunk of them, with JSON values.
            size: requests in a chunk.

        Raises:
            DiskError: the answers cannot be kept.
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
        """Forget it: the evaluation is complete, and its results are kept elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                kept = json.loads(line)
                self._known[kept["chunk"]] = kept["answers"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ConfigError(f"{self.path}:{number}: damaged ({error}); delete the file to begin anew") from error
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))

    def _keep(self, digest: str, answers: list[Any]) -> None:
        line = json.dumps({"chunk": digest, "answers": answers}, ensure_ascii=False) + "\n"
        with writing(self.path), self.path.open("ab") as file:
            file.write(line.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())
        self._known[digest] = json.loads(line)["answers"]  # as a later run will read them


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
