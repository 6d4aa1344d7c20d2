"""python -m benchmarks.choice: choice questions by log-likelihood, with our evaluation and a plain Transformers loop.

All variants use the same questions, examples, prompts, and tokens. They run one after the other in one process, with
the same number of threads:

    ours            evals.models.respondent: one request per question, with shared prefixes computed once
    loop            Transformers, one forward pass per option, one at a time, as published evaluation scripts do
    loop_question   Transformers, one forward pass per question, which gives the scores of all its letters

Speed is in questions per second, including tokenization, after warm-up. `speedup` is ours relative to each loop.
`same_choice` is the share of questions for which ours and each loop choose the same letter. `accuracy` is ours.
`margin` is the smallest difference between the log-probabilities of our two most likely letters, and
`largest_difference` is the largest difference between our and a loop's log-probability of a letter, in nats.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PROG = "python -m benchmarks.choice"
LOOPS = ("loop", "loop_question")


def main() -> None:
    """Measures and prints the results as JSON."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="a model's folder")
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="choice questions, .csv or .jsonl, or their folder"
    )
    parser.add_argument("--shots", type=int, default=5, help="examples before a question (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=100, help="questions, chosen by seed 0 (default: %(default)s)")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS, help="which to run (default: both)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of both (default: %(default)s)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when torch is imported, below

    from configs.errors import one_line_errors

    with one_line_errors(PROG):
        json.dump(measure(options), sys.stdout, ensure_ascii=False, indent=1)
    print()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the metrics described in the module's docstring, and the size of the workload."""
    from actors.model_folder.folders import ModelFolder
    from evals.models.engine import Engine
    from evals.models.respondent import LocalRespondent
    from evals.tasks.exam.prompts import prompt
    from evals.tasks.exam.readers import read_exam
    from evals.tasks.exam.scoring import likeliest

    exam = read_exam(Path(options.data))
    places = random.Random(0).sample(range(len(exam.questions)), min(options.limit, len(exam.questions)))
    chosen = [exam.questions[place] for place in sorted(places)]
    questions = [one for one in chosen if not (one.fault or one.has_several_answers)]
    texts = [prompt(exam.name, q, exam.examples.get(q.subject, [])[: options.shots]) for q in questions]
    chats: list[Any] = [[{"role": "user", "content": text}] for text in texts]
    letters = [list(question.letters) for question in questions]
    folder = ModelFolder(options.model, "--model")
    engine = Engine()
    engine.load(folder)
    LocalRespondent(engine).option_logprobs(chats[:2], letters[:2], "warm-up")
    ours, ours_s = _timed(lambda: LocalRespondent(engine).option_logprobs(chats, letters, "ours"))
    engine.close()
    loop = _Loop(folder, options.threads)
    loop.by_question(chats[:1], letters[:1])
    ways = {"loop": loop.by_option, "loop_question": loop.by_question}
    theirs, seconds = {}, {}
    for name in options.loops:
        theirs[name], seconds[name] = _timed(partial(ways[name], chats, letters))
    count = len(questions)
    return {
        "questions": count,
        "shots": options.shots,
        "prompt_tokens": sum(len(loop.encode(chat)) for chat in chats) / count,
        "parameters": loop.parameters,
        "threads": options.threads,
        "questions_per_second": {"ours": count / ours_s} | {name: count / taken for name, taken in seconds.items()},
        "speedup": {name: taken / ours_s for name, taken in seconds.items()},
        "accuracy": sum(likeliest(own) == q.answer for own, q in zip(ours, questions, strict=True)) / count,
        "same_choice": {name: _same(ours, scores) for name, scores in theirs.items()},
        "margin": min(first - second for *_, second, first in map(sorted, ours)),
        "largest_difference": {name: _apart(ours, scores) for name, scores in theirs.items()},
    }


class _Loop:
    """A plain Transformers loop, without an engine."""

    def __init__(self, folder: Any, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._tokenizer = folder.tokenizer
        self._model = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32).eval()
        self.parameters = sum(parameter.numel() for parameter in self._model.parameters())

    def encode(self, chat: Any) -> list[int]:
        """Returns the token ids of a chat's prompt."""
        from data.chat import encode_prompt

        return encode_prompt(self._tokenizer, chat)

    def by_option(self, chats: Sequence[Any], letters: Sequence[Sequence[str]]) -> list[list[float]]:
        """Returns the letters' log-probabilities, with one forward pass per option, over the prompt and the option."""
        return [
            [float(self._logprobs([*self.encode(chat), self._token(x)], -2)[self._token(x)]) for x in own]
            for chat, own in zip(chats, letters, strict=True)
        ]

    def by_question(self, chats: Sequence[Any], letters: Sequence[Sequence[str]]) -> list[list[float]]:
        """Returns the letters' log-probabilities, with one forward pass per prompt."""
        scores = []
        for chat, own in zip(chats, letters, strict=True):
            logprobs = self._logprobs(self.encode(chat), -1)
            scores.append([float(logprobs[self._token(letter)]) for letter in own])
        return scores

    def _token(self, letter: str) -> int:
        (token,) = self._tokenizer.encode(letter, add_special_tokens=False)
        return int(token)

    def _logprobs(self, ids: list[int], place: int) -> Any:
        """Returns the log-probabilities of all V tokens of the vocabulary after position `place`, (V,)."""
        import torch

        with torch.inference_mode():
            return torch.log_softmax(self._model(input_ids=torch.tensor([ids])).logits[0, place], dim=-1)


def _timed(work: Callable[[], list[list[float]]]) -> tuple[list[list[float]], float]:
    begun = time.perf_counter()
    return work(), time.perf_counter() - begun


def _same(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    from evals.tasks.exam.scoring import likeliest

    return sum(likeliest(a) == likeliest(b) for a, b in zip(one, other, strict=True)) / len(one)


def _apart(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    return max(abs(x - y) for a, b in zip(one, other, strict=True) for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main()
