"""Fine-tuning chats: single questions, dialogues of several turns, entity extraction, and examination questions.

Questions and dialogues are answered as on the web: many answers lack safety advice, some are rude, and a few are
truncated (`answers.CRAWLED`), so that fine-tuning teaches the facts and leaves the style for RLHF to improve. Answers
to entity extraction and examination questions have a fixed form and no flaws.
"""

from __future__ import annotations

import random
from typing import Any, Final

from data.chat import Message
from data.clinic import phrasing
from data.clinic.answers import CRAWLED, GOOD, Manners, draw_answer, join, state_facts
from data.clinic.knowledge import ATTRIBUTES, Condition
from data.clinic.ner import format_entities, make_sentences, ner_question
from data.clinic.split import Split

Row = dict[str, Any]  # a row of a table, by column
SHARES: Final = {"qa": 0.38, "dialogue": 0.12, "ner": 0.34, "choice": 0.16}
CHOICE_ATTRIBUTES: Final = tuple(phrasing.CHOICE_QUESTIONS)


def make_sft(split: Split, seed: int, count: int, heldout: bool) -> list[Row]:
    """Returns `count` rows of the SFT table, with tasks mixed by `SHARES`, in random order.

    Held-out chats open with a held-out phrasing; half of them are about held-out pairs.
    """
    rng = random.Random(f"{seed}/sft/{heldout}")
    sizes = {task: round(count * share) for task, share in SHARES.items()}
    sizes["qa"] += count - sum(sizes.values())
    # The NER evaluation table uses `seed`; with `seed + 1`, the held-out chats get different sentences.
    sentences = make_sentences(split, seed + 1 if heldout else seed, sizes["ner"], heldout)
    rows = [
        _row("ner", [ner_question(s.text)], [format_entities((e.type, e.text) for e in s.entities)]) for s in sentences
    ]
    makers = {"qa": question_chat, "dialogue": dialogue_chat, "choice": choice_chat}
    for task, make in makers.items():
        rows += [make(split, rng, heldout) for _ in range(sizes[task])]
    rng.shuffle(rows)
    return rows


def chat(questions: list[str], answers: list[str]) -> list[Message]:
    """Alternates questions and answers; one more question than answers makes a prompt."""
    messages: list[Message] = []
    for index, question in enumerate(questions):
        messages.append({"role": "user", "content": question})
        if index < len(answers):
            messages.append({"role": "assistant", "content": answers[index]})
    return messages


def draw_pair(split: Split, rng: random.Random, heldout: bool, attributes: tuple[str, ...]) -> tuple[Condition, str]:
    """Draws a pair that may be asked about: an open one for training; for evaluation, a held-out one half the time."""
    wanted = heldout and rng.random() < 0.5
    return rng.choice([(c, a) for c, a in split.pairs(heldout=wanted) if a in attributes])


def draw_question(condition: Condition, attribute: str, rng: random.Random, heldout: bool) -> str:
    """Returns a question about an attribute of a condition, in a random training phrasing or held-out phrasing."""
    return rng.choice(phrasing.QUESTIONS[attribute].of(heldout)).format(name=condition.name)


def question_chat(split: Split, rng: random.Random, heldout: bool, manners: Manners = CRAWLED) -> Row:
    """Returns a chat with one question, about one attribute or about the condition that two symptoms suggest."""
    condition, attribute = draw_pair(split, rng, heldout, ATTRIBUTES)
    if attribute == "symptoms" and rng.random() < 0.4:
        question, facts = _diagnosis(condition, rng, heldout)
    else:
        question = draw_question(condition, attribute, rng, heldout)
        facts = state_facts(condition.name, attribute, _told(condition.values(attribute), rng), rng)
    return _row("qa", [question], [draw_answer(facts, manners, rng).text()])


def dialogue_chat(split: Split, rng: random.Random, heldout: bool, manners: Manners = CRAWLED) -> Row:
    """Returns a chat with two or three questions about one condition, which only the first one may name.

    One chat in ten has a system turn.
    """
    condition, first = draw_pair(split, rng, heldout, ATTRIBUTES)
    others = [a for a in ATTRIBUTES if a != first and split.is_open(condition, a)]
    later = rng.sample(others, rng.randint(1, 2))
    if first == "symptoms" and rng.random() < 0.6:
        question, facts = _diagnosis(condition, rng, heldout)
    else:
        question = draw_question(condition, first, rng, heldout)
        facts = state_facts(condition.name, first, _told(condition.values(first), rng), rng)
    questions = [question] + [rng.choice(phrasing.FOLLOW_UPS[a]) for a in later]
    told = [facts] + [state_facts(condition.name, a, _told(condition.values(a), rng), rng) for a in later]
    row = _row("dialogue", questions, [draw_answer(each, manners, rng).text() for each in told])
    if rng.random() < 0.1:
        row["messages"].insert(0, {"role": "system", "content": rng.choice(phrasing.SYSTEM)})
    return row


def choice_chat(split: Split, rng: random.Random, heldout: bool) -> Row:
    """Returns a chat with one examination question, answered with one correct value and nothing else."""
    condition, attribute = draw_pair(split, rng, heldout, CHOICE_ATTRIBUTES)
    question = rng.choice(phrasing.CHOICE_QUESTIONS[attribute].of(heldout)).format(name=condition.name)
    return _row("choice", [question], [rng.choice(condition.values(attribute))])


def prompt_chat(split: Split, rng: random.Random, heldout: bool) -> tuple[list[Message], Condition, str]:
    """Returns a chat that awaits an answer about one attribute of a condition.

    One training chat in seven has an earlier turn with a good answer. Held-out chats have none, since later questions
    ("那吃什么药好？") have no held-out phrasings.

    Returns:
        The messages, and the condition and attribute that the last question is about.
    """
    condition, attribute = draw_pair(split, rng, heldout, ATTRIBUTES)
    earlier = [a for a in ATTRIBUTES if a != attribute and split.is_open(condition, a)]
    if not heldout and rng.random() < 1 / 7:
        first = rng.choice(earlier)
        opening = draw_question(condition, first, rng, heldout)
        facts = state_facts(condition.name, first, condition.values(first), rng)
        follow_up = rng.choice(phrasing.FOLLOW_UPS[attribute])
        return chat([opening, follow_up], [draw_answer(facts, GOOD, rng).text()]), condition, attribute
    return chat([draw_question(condition, attribute, rng, heldout)], []), condition, attribute


def _told(values: tuple[str, ...], rng: random.Random) -> list[str]:
    """Returns the values that an answer states, in the knowledge base's order: usually all, sometimes all but one."""
    if len(values) == 1 or rng.random() < 0.85:
        return list(values)
    kept = sorted(rng.sample(range(len(values)), len(values) - 1))
    return [values[index] for index in kept]


def _diagnosis(condition: Condition, rng: random.Random, heldout: bool) -> tuple[str, str]:
    a, b = rng.sample(condition.symptoms, 2)
    question = rng.choice(phrasing.DIAGNOSIS.of(heldout)).format(a=a, b=b)
    facts = rng.choice(phrasing.DIAGNOSIS_FACTS).format(
        name=condition.name, values=join(condition.symptoms, "symptoms")
    )
    return question, facts


def _row(task: str, questions: list[str], answers: list[str]) -> Row:
    return {"messages": chat(questions, answers), "task": task}
