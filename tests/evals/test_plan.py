from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from actors.model_folder.folders import ModelFolder
from configs.base import REPOSITORY
from configs.errors import ConfigError
from data.tables import CHOICE, PROMPTS, DataError, write_table
from evals import run
from evals.options import parse
from evals.plan import Plan, make_plan

Planner = Callable[..., Plan]


@pytest.fixture
def plan(clinic: Path) -> Planner:
    return lambda *options: make_plan(parse(["--data", str(clinic), *options]))


def test_one_model_does_all_that_needs_no_second_one(plan: Planner, make_model: Callable[..., Path]) -> None:
    made = plan("--model", str(make_model("a")))
    assert list(made.tasks) == ["perplexity", "choice", "ner", "open"]
    assert not made.named
    assert made.settings.limits == {"perplexity": 200, "choice": 300, "ner": 200, "open": 150}
    assert [len(rows) for rows in made.tasks.values()] == [12] * 4


def test_models_get_the_tasks_of_their_kind(plan: Planner, make_model: Callable[..., Path]) -> None:
    reward = str(make_model("reward", seed=5, reward=True))
    language = str(make_model("a"))
    made = plan(
        "--model", f"a={language}", "--model", f"r={reward}", "--reward-model", reward, "--reference", language
    )  # fmt: skip
    assert made.tasks_for(made.models["a"]) == ["perplexity", "choice", "ner", "open", "reward", "kl"]
    assert made.tasks_for(made.models["r"]) == ["pairwise"]
    assert made.named


def test_a_limit_takes_rows_by_the_seed_in_their_order(plan: Planner, make_model: Callable[..., Path]) -> None:
    def questions(*options: str) -> list[str]:
        return [row["question"] for row in plan("--model", str(make_model("a")), *options).tasks["choice"]]

    every = questions()
    five = questions("--limit", "5")
    assert len(five) == 5
    assert five == sorted(five, key=every.index)
    assert five == questions("--limit", "5")
    assert five != questions("--limit", "5", "--seed", "1")


def test_longer_answers_are_allowed_where_asked_for(plan: Planner, make_model: Callable[..., Path]) -> None:
    model = str(make_model("a"))
    usual, longer = plan("--model", model).settings, plan("--model", model, "--response-tokens", "160").settings
    assert (usual.open_tokens, usual.sample_tokens) == (64, 64)
    assert (longer.open_tokens, longer.sample_tokens) == (160, 160)
    assert longer.ner_tokens == usual.ner_tokens


def test_context_and_precision_are_saved_with_the_settings(plan: Planner, make_model: Callable[..., Path]) -> None:
    model = str(make_model("a"))
    made = plan("--model", model, "--max-model-len", "128", "--dtype", "bfloat16").settings
    assert (made.max_model_len, made.dtype) == (128, "bfloat16")
    assert plan("--model", model).settings.max_model_len is None


@pytest.mark.parametrize(("gpu", "dtype"), [(None, "float32"), (80 * 2**30, "bfloat16")])
def test_results_are_of_a_precision_and_so_is_the_ledger(
    gpu: int | None, dtype: str, plan: Planner, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "gpu_bytes", lambda: gpu)
    model = str(make_model("a"))
    assert plan("--model", model).settings.dtype == "auto"
    made = run.with_precision(plan("--model", model))
    assert run._settings(made)["dtype"] == dtype
    assert made.settings.sizing.engine_config(ModelFolder(model), gpu is not None).dtype == dtype
    asked = [run.with_precision(plan("--model", model, "--dtype", each)) for each in ("float32", "bfloat16")]
    assert [each.settings.dtype for each in asked] == ["float32", "bfloat16"]
    assert [run._digest(made) == run._digest(each) for each in asked] == [gpu is None, gpu is not None]


def test_an_endpoint_has_a_precision_of_its_own(plan: Planner) -> None:
    made = run.with_precision(plan("--endpoint", "http://127.0.0.1:1/v1", "--tasks", "safety"))
    assert made.settings.dtype is None
    with pytest.raises(ConfigError, match=r"--dtype, .*: cannot be used with --endpoint"):
        plan("--endpoint", "http://127.0.0.1:1/v1", "--tasks", "safety", "--dtype", "float32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nowhere"], "--model: there is no folder nowhere"),
        (["--model", "A", "--tasks", "cloze"], "there is no task 'cloze'; choose from perplexity"),
        (["--model", "A", "--tasks", "ner,ner"], "'ner' is given twice"),
        (["--model", "A", "--tasks", "reward"], "reward needs --reward-model DIR"),
        (["--model", "A", "--tasks", "ner,kl"], "kl needs --reference DIR"),
        (["--model", "A", "--tasks", "pairwise"], "pairwise evaluates a reward model, and none is given"),
        (["--model", "R", "--tasks", "ner"], "ner evaluates a language model, and none is given"),
        (["--model", "a=A", "--model", "r=R", "--tasks", "ner"], "--model r: is a reward model, for which"),
        (["--model", "A", "--model", "b=A"], "with several models, each needs a name"),
        (["--model", "a=A", "--model", "a=A"], "the name 'a' is given twice"),
        (["--model", "A", "--reward-model", "A"], "--reward-model: .* has no scalar head"),
        (["--model", "A", "--reference", "R"], "--reference: .* is a reward model"),
        (["--model", "A", "--reference", "gone"], "--reference: there is no folder gone"),
        (["--model", "A", "--data", "gone"], "--data: there is no folder gone"),
        (["--model", "A", "--json", "."], "--json=.: is a folder"),
        (["--model", "A", "--html", "."], "--html=.: is a folder"),
        (["--model", "A", "--tasks", "preference", "--reward-model", "R"], "preference needs --against DIR"),
        (
            ["--model", "A", "--tasks", "exam"],
            "exam needs a file; name it with --file exam=PATH; any file of exam questions, such as CMExam",
        ),
        (["--model", "A", "--tasks", "cmmlu"], r"cmmlu needs a file \(looked for cmmlu in "),
        (
            ["--model", "A", "--tasks", "cmmlu"],
            r"published at https://\S+/cmmlu: a folder with test/SUBJECT.csv and dev/",
        ),
        (
            ["--model", "A", "--tasks", "ceval"],
            r"published at https://\S+/ceval-exam: a folder with val/SUBJECT_val.csv",
        ),
        (
            ["--model", "A", "--tasks", "medqa"],
            r"published at https://\S+/MedQA: its Mainland test file, as medqa.jsonl",
        ),
        (["--model", "A", "--file", "exam=gone"], "--file exam=gone: there is no such file"),
        (["--model", "A", "--file", "cloze=x"], "write --file TASK=PATH, TASK being one of cmmlu"),
        (["--model", "A", "--file", "exam=x", "--file", "exam=y"], "exam already has a file"),
        (["--model", "A", "--tasks", "ner", "--file", "exam=x"], "--tasks does not name exam"),
        (["--model", "A", "--max-model-len", "512"], "--max-model-len 512: exceeds the 256 tokens of "),
        (["--model", "A", "--max-model-len", "64"], "--response-tokens 64: leaves no room .* context of 64 tokens"),
        (["--endpoint", "http://x/v1", "--dtype", "bfloat16"], "cannot be used with --endpoint"),
        (["--endpoint", "http://x/v1", "--tasks", "ner"], "ner needs a model's folder, not an endpoint"),
    ],
)
def test_what_cannot_work_is_refused(
    plan: Planner, make_model: Callable[..., Path], options: list[str], said: str
) -> None:
    folders = {"A": str(make_model("a")), "R": str(make_model("reward", seed=5, reward=True))}
    given = []
    for option in options:
        name, equals, folder = option.rpartition("=")
        given.append(name + equals + folders.get(folder, folder))
    with pytest.raises(ConfigError, match=said):
        plan(*given)


def test_benchmarks_read_their_files(plan: Planner, make_model: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "骨科.csv"
    file.write_text("Question,A,B,Answer\n一,甲,乙,A\n二,甲,乙,B\n", encoding="utf-8")
    model = str(make_model("a"))
    made = plan(
        "--model", model, "--tasks", "exam,cami,safety", "--file", f"exam={file}", "--limit", "1", "--shots", "3"
    )
    assert list(made.tasks) == ["exam", "cami", "safety"]
    assert len(made.tasks["exam"].questions) == len(made.tasks["safety"].requests) == 1
    assert len(made.tasks["cami"].items) == 40  # a part of a scale measures something else
    assert made.settings.shots == (3,)
    assert {name: len(files) for name, files in made.files.items()} == {"exam": 1, "cami": 1, "safety": 1}
    assert len(made.files["exam"][str(file)]) == 64
    assert list(plan("--model", model, "--file", f"exam={file}").tasks)[-1] == "exam"


def test_a_table_may_be_a_folder_of_parts(
    plan: Planner, clinic: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    parts = tmp_path / "pretrain.heldout"
    parts.mkdir()
    for number in range(2):
        shutil.copy(clinic / "pretrain.heldout.parquet", parts / f"part-0000{number}.parquet")
    (parts / "report.json").write_text("{}")
    made = plan("--model", str(make_model("a")), "--tasks", "perplexity", "--data", str(tmp_path))
    assert len(made.tasks["perplexity"]) == 24
    assert [*made.files["perplexity"]] == [str(parts / f"part-0000{number}.parquet") for number in range(2)]


def test_an_endpoint_is_asked_what_needs_no_files(plan: Planner) -> None:
    made = plan("--endpoint", "http://127.0.0.1:1/v1")
    assert (list(made.tasks), dict(made.models), made.endpoint) == (["cami", "safety"], {}, "http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    "option", [["--shots", "0,0"], ["--shots", "-1"], ["--methods", "guessing"], ["--methods", ""]]
)
def test_options_without_sense_are_refused(option: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--model", "a", *option])


def test_bad_rows_are_named_with_file_and_row(plan: Planner, make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = str(make_model("a"))
    good = {"question": "用什么药？", "options": ["甲", "乙"], "answer": 1, "subject": "药物"}
    table = pa.Table.from_pylist([good, {**good, "answer": 2}], CHOICE)
    write_table(table, tmp_path / "choice.heldout.parquet")
    with pytest.raises(DataError, match=r"choice.heldout.parquet: row 1: answer 2 is outside its options 0 to 1"):
        plan("--model", model, "--tasks", "choice", "--data", str(tmp_path))
    turns = [{"role": "user", "content": "头痛"}, {"role": "assistant", "content": "休息"}]
    write_table(pa.Table.from_pylist([{"prompt": turns}], PROMPTS), tmp_path / "prompts.heldout.parquet")
    with pytest.raises(DataError, match=r"prompts.heldout.parquet: row 0: prompt does not end with the user's turn"):
        plan("--model", model, "--tasks", "kl", "--reference", model, "--data", str(tmp_path))
    with pytest.raises(DataError, match=r"ner.heldout.parquet: no such file; create it, or give --tasks only"):
        plan("--model", model, "--tasks", "ner", "--data", str(tmp_path))


def test_the_command_refuses_a_missing_model_in_one_line_at_once() -> None:
    begun = time.monotonic()
    command = [sys.executable, "-m", "evals.run", "--model", "runs/nowhere/model"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("python -m evals.run: error: --model: there is no folder ")
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - begun < 10  # torch and vLLM were not imported


@pytest.mark.parametrize("option", ["--reward-model", "--reference", "--against"])
@pytest.mark.parametrize(
    ("change", "said"),
    [("vocabulary", "have different vocabularies"), ("context", "other.* takes 64 tokens, and .*evaluated with 256")],
)
def test_models_that_do_not_go_together_are_refused_before_any_is_loaded(
    option: str, change: str, said: str, plan: Planner, make_model: Callable[..., Path]
) -> None:
    first, second = make_model("a"), make_model("b")
    other = make_model(
        f"other-{change}-{option}",
        reward=option == "--reward-model",
        **({"max_position_embeddings": 64} if change == "context" else {}),
    )
    if change == "vocabulary":
        for folder in (first, second):
            assert plan("--model", str(folder), "--reference", str(first)).reference is not None
        path = other / "tokenizer.json"
        state = json.loads(path.read_text("utf-8"))
        vocabulary = state["model"]["vocab"]
        (one, number), (two, more) = list(vocabulary.items())[-2:]
        vocabulary |= {one: more, two: number}
        path.write_text(json.dumps(state), "utf-8")
    given = [option, str(other)]
    with pytest.raises(ConfigError, match=said):
        plan("--model", f"a={first}", "--model", f"b={second}", *given)
