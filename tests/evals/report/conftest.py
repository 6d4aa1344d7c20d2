"""Results of two respondents that are known: one right and tolerant, one that says A."""

from __future__ import annotations

import json
from typing import Any

import pytest
from respondents import Oracle, options_of

from evals.models.subject import Settings
from evals.tasks.dialogue import task as dialogue
from evals.tasks.dialogue.readers import read_dialogues
from evals.tasks.exam import task as exam
from evals.tasks.exam.readers import read_exam
from evals.tasks.scales import task as scales
from evals.tasks.scales.schema import CAMI, read_scale

SETTINGS = Settings(seed=0, limits={}, shots=(0,))
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("items")
    rows = [f"{n},第{n}题,肝,心,脾,肺,{'ABCD'[n % 4]}" for n in range(12)] + ["12,坏,肝,,脾,肺,A"]
    (folder / "骨科.csv").write_text(",Question,A,B,C,D,Answer\n" + "\n".join(rows), encoding="utf-8")
    turns = [{"question": f"头痛{n}{HOSTILE}", "answer": f"多休息{n}"} for n in range(4)]
    lines = "\n".join(json.dumps(turn, ensure_ascii=False) for turn in turns)
    (folder / "a.jsonl").write_text(lines, encoding="utf-8")

    def knows(prompt: str) -> str:
        if "头痛" in prompt:
            return f"多休息{prompt[2]}"
        options = options_of(prompt)
        if "非常同意" in options.values():
            return next(letter for letter, text in options.items() if text == "中立")
        right = "肝心脾肺"[int(prompt.partition("第")[2].partition("题")[0]) % 4]
        return next(letter for letter, text in options.items() if text == right)

    questions, dialogues, cami = read_exam(folder / "骨科.csv"), read_dialogues(folder / "a.jsonl"), read_scale(CAMI)
    models = {}
    for name, says in (("knows", knows), ("says A", lambda _: "A")):
        oracle = Oracle(says)
        tasks = {
            "cmmlu": exam.evaluate(oracle, questions, SETTINGS),
            "dialogue": dialogue.evaluate(oracle, dialogues, SETTINGS),
            "cami": scales.evaluate(oracle, cami, SETTINGS),
        }
        timed = {task: {**values, "seconds": 2.0} for task, values in tasks.items()}
        models[name] = {"model": f"runs/{name}", "sha256": "0" * 64, "tasks": timed, "seconds": 6.0}
    settings = {**SETTINGS.model_dump(mode="json"), "files": {"cmmlu": questions.files}, "versions": {"torch": "2"}}
    return {"models": models, "settings": settings, "seconds": 12.0, "recalled": 0}
