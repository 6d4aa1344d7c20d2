"""Benchmarks on files in their publishers' formats, for any respondent: their default paths, readers, and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.tables import DataError
from evals.models.respondent import Respondent
from evals.models.subject import Metrics, Settings
from evals.tasks import ccks, safety
from evals.tasks.dialogue import readers as dialogue_readers
from evals.tasks.dialogue import task as dialogue
from evals.tasks.exam import readers as exam_readers
from evals.tasks.exam import task as exam
from evals.tasks.scales import task as scales
from evals.tasks.scales.schema import CAMI, read_scale

SAFETY = Path(__file__).with_name("safety.jsonl")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: where its items are found, and how they are read and evaluated."""

    headline: str
    """The metric that the printed table shows."""
    read: Callable[[Path, int | None, int], Any]
    """Reads the items, given the path, the maximum number of items (None for all), and the seed that selects them.

    The result has an attribute `files`: the SHA-256 of each file that was read, by path.
    """
    evaluate: Callable[[Respondent, Any, Settings], Metrics]
    found_at: Sequence[str] = ()
    """Glob patterns of the benchmark's file or folder in the data folder; the first match in path order is used."""
    shipped: Path | None = None
    """A file included in the project, used if the data folder has none."""
    obtained: str = ""
    """Where its files are published, and how to lay them out."""
    check: Callable[[Any, Settings], None] = lambda items, settings: None
    """Raises DataError for items that cannot be evaluated with the settings."""

    def source(self, data: Path | None, given: Path | None, name: str) -> Path:
        """Returns the file or folder to read.

        Args:
            data: the data folder; None if there is none.
            given: the path given with `--file`; None if the option is not given.
            name: the benchmark's name, for error messages.

        Raises:
            DataError: there is no such file or folder.
        """
        if given is not None:
            if not given.exists():
                raise DataError(f"--file {name}={given}: there is no such file or folder")
            return given
        places = sorted(path for pattern in self.found_at for path in (data.glob(pattern) if data else ()))
        if places:
            return places[0]
        if self.shipped is not None:
            return self.shipped
        looked = f" (looked for {', '.join(self.found_at)} in {data})" if self.found_at else ""
        obtained = f"; {self.obtained}" if self.obtained else ""
        raise DataError(f"--tasks: {name} needs a file{looked}; name it with --file {name}=PATH{obtained}")


@dataclass(frozen=True)
class _Limited:
    """A `Benchmark.read` that reads all items and then samples them."""

    read: Callable[[Path], Any]
    sampled: Callable[[Any, int, int], Any]

    def __call__(self, path: Path, limit: int | None, seed: int) -> Any:
        items = self.read(path)
        return items if limit is None else self.sampled(items, limit, seed)


def _whole_scale(path: Path, limit: int | None, seed: int) -> Any:
    """Reads a scale and ignores the limit: a subset of its items would not measure the same construct."""
    return read_scale(path)


_DIALOGUES = _Limited(dialogue_readers.read_dialogues, dialogue.sampled)

BENCHMARKS: dict[str, Benchmark] = {
    "cmmlu": Benchmark(
        "accuracy",
        _Limited(exam_readers.read_cmmlu, exam.sampled),
        exam.evaluate,
        ("cmmlu",),
        obtained="published at https://huggingface.co/datasets/haonan-li/cmmlu: a folder with test/SUBJECT.csv and "
        "dev/SUBJECT.csv",
        check=exam.check,
    ),
    "ceval": Benchmark(
        "accuracy",
        _Limited(exam_readers.read_ceval, exam.sampled),
        exam.evaluate,
        ("ceval",),
        obtained="published at https://huggingface.co/datasets/ceval/ceval-exam: a folder with val/SUBJECT_val.csv and "
        "dev/SUBJECT_dev.csv",
        check=exam.check,
    ),
    "medqa": Benchmark(
        "accuracy",
        _Limited(exam_readers.read_exam, exam.sampled),
        exam.evaluate,
        ("medqa", "medqa.jsonl"),
        obtained="published at https://github.com/jind11/MedQA: its Mainland test file, as medqa.jsonl",
        check=exam.check,
    ),
    "exam": Benchmark(
        "accuracy",
        _Limited(exam_readers.read_exam, exam.sampled),
        exam.evaluate,
        obtained="any file of exam questions, such as CMExam's test_with_annotations.csv "
        "(https://github.com/williamliujl/CMExam)",
        check=exam.check,
    ),
    "ccks": Benchmark("f1", _Limited(ccks.read_ccks, ccks.sampled), ccks.evaluate, ("ccks*.json", "ccks*.jsonl")),
    "qa": Benchmark("rouge_l", _DIALOGUES, dialogue.evaluate, ("qa.json", "qa.jsonl")),
    "dialogue": Benchmark("rouge_l", _DIALOGUES, dialogue.evaluate, ("dialogue.json*", "*.dialog")),
    "cami": Benchmark("social_restrictiveness", _whole_scale, scales.evaluate, shipped=CAMI),
    "scale": Benchmark("no_answer", _whole_scale, scales.evaluate),
    "safety": Benchmark(
        "right", _Limited(safety.read_safety, safety.sampled), safety.evaluate, ("safety.jsonl",), shipped=SAFETY
    ),
}
