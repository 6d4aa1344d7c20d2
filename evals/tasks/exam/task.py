"""Multiple-choice exams with the protocol of the published tables: 0 and 5 shots, by log-likelihood and generation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from data.chat import Message
from data.tables import DataError
from evals.models.respondent import Respondent
from evals.models.subject import Metrics, Settings
from evals.replies.letters import chosen_option
from evals.tasks.exam.prompts import prompt
from evals.tasks.exam.questions import Exam, Question
from evals.tasks.exam.scoring import Choice, Choices, accuracies, likeliest, rotation_scores
from evals.tasks.exam.several import chosen_options
from evals.tasks.faults import EMPTY, TOO_LONG, UNTOLD, Fault, fault_counts

_LETTER_TOKENS = 1


def sampled(exam: Exam, limit: int, seed: int) -> Exam:
    """Returns the exam with at most `limit` questions of each file, chosen by `seed`, in their original order."""
    by_file: dict[str, list[Question]] = {}
    for question in exam.questions:
        by_file.setdefault(question.where.rpartition(":")[0], []).append(question)
    if all(len(own) <= limit for own in by_file.values()):
        return exam
    questions: list[Question] = []
    for own in by_file.values():
        places = range(len(own)) if len(own) <= limit else sorted(random.Random(seed).sample(range(len(own)), limit))
        questions += [own[place] for place in places]
    left_out = {question.where for question in exam.questions} - {question.where for question in questions}
    faults = [fault for fault in exam.faults if fault.where not in left_out]
    return Exam(exam.name, questions, exam.examples, faults, exam.files)


def check(exam: Exam, settings: Settings) -> None:
    """Rejects an exam that no selected method can evaluate.

    Raises:
        DataError: all questions have several correct options, and log-likelihood is the only method.
    """
    if settings.methods == ("likelihood",) and all(question.has_several_answers for question in exam.questions):
        raise DataError(
            f"all {len(exam.questions)} questions have several correct options, which likelihood cannot choose; "
            "use --methods generation"
        )


def evaluate(model: Respondent, exam: Exam, settings: Settings) -> Metrics:
    """Evaluates a model on an exam.

    By log-likelihood, the choice is the letter that is the most likely beginning of the response; on ties, the first.
    Since this is a single letter, questions with several correct options are evaluated by generation only.

    Args:
        model: the model.
        exam: the questions and few-shot examples.
        settings: methods, numbers of shots, rotation, and length limits.

    Returns:
        - `accuracy`, with `accuracy_interval`: for the first method and number of shots in `settings`. If some
          questions have several correct options, it is for generation if that is selected; otherwise it covers only
          the other questions.
        - `likelihood` and `generation`: for each number of shots N, under `N_shot`, the metrics of `accuracies`. N is
          at most the largest number of examples of any subject. Each entry also has `shown_examples`, the number of
          questions by the number of examples shown, and `dropped_examples`, the number of examples that did not fit
          the context (the last ones are dropped first). Entries of `likelihood` also have `rotation` (see
          `rotation_scores`) if `settings.rotate`, and `not_asked`, the number of questions with several correct
          options, if there are any.
        - `faults`, `prompt` (an example), and `n`. A question that does not fit the context even without examples is a
          fault and counts as wrong.

    Raises:
        DataError: see `check`.
    """
    metrics: Metrics = {}
    check(exam, settings)
    only_several = all(question.has_several_answers for question in exam.questions)
    methods = [method for method in settings.methods if method == "generation" or not only_several]
    shots, faults = _possible_shots(exam, settings.shots)
    faults = [*exam.faults, *faults]
    for method in methods:
        metrics[method] = {}
        for count in shots:
            asked = _Asked(model, exam, count, settings.choice_tokens if method == "generation" else _LETTER_TOKENS)
            ask = _by_likelihood if method == "likelihood" else _by_generation
            metrics[method][f"{count}_shot"] = ask(asked, exam.questions, settings)
            faults += [
                Fault(f.kind, f.where, f"{f.detail} ({method}, {count} examples)".lstrip()) for f in asked.faults
            ]
    several = any(question.has_several_answers for question in exam.questions)
    headline = "generation" if several and "generation" in methods else methods[0]
    first = metrics[headline][f"{shots[0]}_shot"]
    return {
        "accuracy": first["accuracy"],
        "accuracy_interval": first["accuracy_interval"],
        **metrics,
        "faults": fault_counts(faults),
        "prompt": prompt(exam.name, exam.questions[0], []),
        "n": first["n"],
    }


def _possible_shots(exam: Exam, wanted: Sequence[int]) -> tuple[list[int], list[Fault]]:
    """Returns the numbers of shots, at most `exam.most_examples()`, and faults for subjects with too few examples."""
    most = exam.most_examples()
    subjects = dict.fromkeys(question.subject for question in exam.questions)
    short = [(subject, len(exam.examples.get(subject, ()))) for subject in subjects]
    faults = [
        Fault("fewer examples than asked for", subject, f"has {count} of {max(wanted)}")
        for subject, count in short
        if count < max(wanted)
    ]
    return list(dict.fromkeys(min(count, most) for count in wanted)), faults


class _Asked:
    """A converter of questions to chats that fit the context, which also collects faults and counts."""

    def __init__(self, model: Respondent, exam: Exam, shots: int, tokens: int) -> None:
        self.model, self.faults, self.dropped = model, list[Fault](), 0
        self.shots, self._exam, self._tokens = shots, exam, tokens
        self._shown: dict[str, int] = {}

    def chat(self, question: Question) -> list[Message] | None:
        """Returns the chat that asks a question; None if the question cannot be asked.

        A question with several correct options gets only examples with several correct options. Other questions get
        only examples with one correct option.
        """
        if question.fault:
            return None
        alike = [
            one
            for one in self._exam.examples.get(question.subject, [])
            if one.has_several_answers == question.has_several_answers
        ]
        examples = alike[: self.shots]
        for kept in range(len(examples), -1, -1):
            chat: list[Message] = [{"role": "user", "content": prompt(self._exam.name, question, examples[:kept])}]
            if self.model.fits(chat, self._tokens):
                self.dropped += len(examples) - kept
                self._shown[question.where] = kept
                return chat
        self.faults.append(Fault(TOO_LONG, question.where))
        return None

    def counts(self) -> Metrics:
        """Returns `shown_examples` (number of questions by number of examples) and `dropped_examples`."""
        shown = Counter(self._shown.values())
        return {
            "shown_examples": {str(count): shown[count] for count in sorted(shown)},
            "dropped_examples": self.dropped,
        }


def _by_likelihood(asked: _Asked, questions: Sequence[Question], settings: Settings) -> Metrics:
    """Evaluates all rotations of all questions in one call.

    The rotations of a question are adjacent, so that neighboring requests share their subject's examples.
    """
    not_asked = sum(question.has_several_answers for question in questions)
    questions = [question for question in questions if not question.has_several_answers]
    turns = max(len(q.options) for q in questions) if settings.rotate else 1
    rotations = [[q.rotated(by) for by in range(min(turns, len(q.options)) or 1)] for q in questions]
    flat = [question for own in rotations for question in own]
    chats = [asked.chat(question) for question in flat]
    wanted = [(chat, list(q.letters)) for chat, q in zip(chats, flat, strict=True) if chat is not None]
    label = f"choices by likelihood, {asked.shots} examples"
    weights = iter(asked.model.option_logprobs([chat for chat, _ in wanted], [letters for _, letters in wanted], label))
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
    first = [frozenset[int]() if own[0] is None else frozenset((own[0],)) for own in choices]
    metrics = accuracies(questions, first) | asked.counts()
    if not_asked:
        metrics["not_asked"] = not_asked
    if settings.rotate:
        usable = [place for place, question in enumerate(questions) if not question.fault]
        metrics["rotation"] = rotation_scores([rotations[i] for i in usable], [choices[i] for i in usable])
    return metrics


def _by_generation(asked: _Asked, questions: Sequence[Question], settings: Settings) -> Metrics:
    chats = [asked.chat(question) for question in questions]
    label = f"choices by generation, {asked.shots} examples"
    replies = iter(asked.model.answer([chat for chat in chats if chat is not None], settings.choice_tokens, label))
    choices: list[Choices] = []
    for question, chat in zip(questions, chats, strict=True):
        reply = None if chat is None else next(replies)
        if reply is not None and not reply.text.strip():
            asked.faults.append(Fault(reply.problem or EMPTY, question.where))
        choices.append(frozenset() if reply is None else _chosen(reply.text, question))
    return accuracies(questions, choices) | asked.counts()


def _chosen(text: str, question: Question) -> Choices:
    if question.has_several_answers:
        return chosen_options(text, question.letters, question.options)
    choice = chosen_option(text, question.letters, question.options)
    return frozenset() if choice is None else frozenset((choice,))
