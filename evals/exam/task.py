"""Choice questions, as the published tables ask them: with 0 and 5 examples, by log-likelihood and by generation."""

from __future__ import annotations

import random
from collections.abc import Sequence

from data.chat import Message
from evals.exam.prompts import prompt
from evals.exam.questions import Exam, Question
from evals.exam.scoring import Choice, accuracies, likeliest, rotation_scores
from evals.faults import EMPTY, TOO_LONG, UNTOLD, Fault, fault_counts
from evals.letters import chosen_option
from evals.respondent import Respondent
from evals.subject import Metrics, Settings

_LETTER_TOKENS = 1


def sampled(exam: Exam, limit: int, seed: int) -> Exam:
    """The exam with at most `limit` of its questions, chosen by `seed`, in their order."""
    if len(exam.questions) <= limit:
        return exam
    places = sorted(random.Random(seed).sample(range(len(exam.questions)), limit))
    questions = [exam.questions[place] for place in places]
    wheres = {question.where for question in questions}
    faults = [fault for fault in exam.faults if fault.where in wheres]
    return Exam(exam.name, questions, exam.examples, faults, exam.files)


def evaluate(model: Respondent, exam: Exam, settings: Settings) -> Metrics:
    """`accuracy`, the first of the methods' and shots' asked for, and under `likelihood` and `generation` those of
    `accuracies` for each number of examples, as `0_shot`. `rotation`, under `likelihood`, see `rotation_scores`.

    By log-likelihood the letter that is the likeliest beginning of the reply is the choice, the first one of equals.
    Examples that do not fit the context are dropped, the last ones first, and `dropped_examples` counts them; a question
    that does not fit alone is a fault, and wrong.
    """
    metrics: Metrics = {}
    faults = list(exam.faults)
    for method in settings.methods:
        metrics[method] = {}
        for shots in settings.shots:
            asked = _Asked(model, exam, shots, settings.choice_tokens if method == "generation" else _LETTER_TOKENS)
            ask = _by_likelihood if method == "likelihood" else _by_generation
            metrics[method][f"{shots}_shot"] = ask(asked, exam.questions, settings)
            faults += [
                Fault(f.kind, f.where, f"{f.detail} ({method}, {shots} examples)".lstrip()) for f in asked.faults
            ]
    first = metrics[settings.methods[0]][f"{settings.shots[0]}_shot"]
    return {
        "accuracy": first["accuracy"],
        "accuracy_interval": first["accuracy_interval"],
        **metrics,
        "faults": fault_counts(faults),
        "prompt": prompt(exam.name, exam.questions[0], []),
        "n": len(exam.questions),
    }


class _Asked:
    """Turns questions into chats that fit, and notes what is wrong with the replies."""

    def __init__(self, model: Respondent, exam: Exam, shots: int, tokens: int) -> None:
        self.model, self.faults, self.dropped = model, list[Fault](), 0
        self.shots, self._exam, self._tokens = shots, exam, tokens

    def chat(self, question: Question) -> list[Message] | None:
        """The chat that asks it; None if it cannot be asked."""
        if question.fault:
            return None
        examples = self._exam.examples.get(question.subject, [])[: self.shots]
        for kept in range(len(examples), -1, -1):
            chat: list[Message] = [{"role": "user", "content": prompt(self._exam.name, question, examples[:kept])}]
            if self.model.fits(chat, self._tokens):
                self.dropped += self.shots - kept
                return chat
        self.faults.append(Fault(TOO_LONG, question.where))
        return None


def _by_likelihood(asked: _Asked, questions: Sequence[Question], settings: Settings) -> Metrics:
    """All rotations at a time, those of one question apart, so that neighbours share their subject's examples."""
    turns = max(len(q.options) for q in questions) if settings.rotate else 1
    rotations = [[q.rotated(by) for by in range(min(turns, len(q.options)) or 1)] for q in questions]
    flat = [question for own in rotations for question in own]
    chats = [asked.chat(question) for question in flat]
    wanted = [(chat, list(q.letters)) for chat, q in zip(chats, flat, strict=True) if chat is not None]
    label = f"choices by likelihood, {asked.shots} examples"
    weights = iter(asked.model.weigh([chat for chat, _ in wanted], [letters for _, letters in wanted], label))
    picks: list[Choice] = []
    for question, chat in zip(flat, chats, strict=True):
        own = [] if chat is None else next(weights)
        if chat is not None and not own:
            asked.faults.append(Fault(UNTOLD, question.where))
        picks.append(likeliest(own))
    choices, start = [], 0
    for turned in rotations:
        choices.append(picks[start : start + len(turned)])
        start += len(turned)
    metrics = accuracies(questions, [own[0] for own in choices]) | {"dropped_examples": asked.dropped}
    if settings.rotate:
        usable = [place for place, question in enumerate(questions) if not question.fault]
        metrics["rotation"] = rotation_scores([rotations[i] for i in usable], [choices[i] for i in usable])
    return metrics


def _by_generation(asked: _Asked, questions: Sequence[Question], settings: Settings) -> Metrics:
    chats = [asked.chat(question) for question in questions]
    label = f"choices by generation, {asked.shots} examples"
    replies = iter(asked.model.answer([chat for chat in chats if chat is not None], settings.choice_tokens, label))
    choices: list[Choice] = []
    for question, chat in zip(questions, chats, strict=True):
        reply = None if chat is None else next(replies)
        if reply is not None and not reply.text.strip():
            asked.faults.append(Fault(reply.problem or EMPTY, question.where))
        choices.append(None if reply is None else chosen_option(reply.text, question.letters, question.options))
    return accuracies(questions, choices) | {"dropped_examples": asked.dropped}
