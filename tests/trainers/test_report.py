from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from reporting.formats import format_time
from trainers.report import follow, main, report
from trainers.reporting.page import cards, render, sections
from trainers.reporting.record import read_record
from trainers.reporting.samples import read_samples

PPO_PANELS = ("Reward", "KL to the reference", "Entropy", "Clip fraction", "Explained variance", "Response length")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


class Text(HTMLParser):
    """The tags of a page, and its text without scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture
def make(runs: Path) -> Callable[..., Path]:
    """Writes the folder of a run: its settings, and lines of metrics given as mappings or as text."""

    def write(
        *lines: dict[str, Any] | str, stage: str = "ppo", settings: str = "steps: 4", name: str = "a/run"
    ) -> Path:
        folder = runs / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"{stage}:\n  name: {name}\n  {settings}\n", encoding="utf-8")
        texts = [line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines]
        if texts:
            (folder / "metrics.jsonl").write_text("".join(texts), encoding="utf-8")
        return folder

    return write


def page_of(folder: Path, now: float | None = None) -> str:
    return render(read_record(folder), read_samples(folder), now)


def steps(count: int, **values: Any) -> list[dict[str, Any]]:
    """Lines of `count` steps, ten seconds apart."""
    return [{"step": n, "time": 1000.0 + 10 * n, "reward": n / 10, **values} for n in range(1, count + 1)]


def sample(step: int = 4, **values: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "头痛怎么办"}]
    given = {"step": step, "prompt": prompt, "response": "多休息。", "tokens": 4, "finished": True, "reward": 0.5}
    return {**given, "parts": {"format": 1.0}, **values}


def write_samples(folder: Path, step: int, *samples: dict[str, Any] | str) -> Path:
    path = folder / "samples" / f"step-{step:08d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in samples))
    return path


def test_the_command_writes_one_page_that_needs_nothing_else(make, capsys):
    folder = make(*steps(4, kl_to_reference=0.25))
    main(["runs/a/run"])
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"report: {folder / 'report.html'}\n"
    page = Text(html)
    assert not {"iframe", "object", "embed", "base"} & set(page.tags)
    assert [value for name, value in page.attributes if name in ("src", "href")] == ["data:,"]
    assert "url(" not in html
    assert page.tags.count("script") == 1
    assert "script-src 'sha256-" in html
    assert "a/run" in page.text
    assert "steps: 4" in page.text


def test_out_names_another_file(make, tmp_path):
    folder = make(*steps(2))
    assert report([str(folder)], str(tmp_path / "other.html")) == tmp_path / "other.html"
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("run", "out", "message"),
    [
        ("runs/none", None, "run: there is no folder"),
        ("runs", None, "is not the folder of a run, because it has no config.yaml; give runs/NAME"),
        ("runs/a/run", "runs/a/none/page.html", "cannot be written (No such file or directory); give another file"),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line(make, capsys, run, out, message):
    make(*steps(1))
    with pytest.raises(SystemExit) as ended:
        main([run, *(["--out", out] if out else [])])
    line = capsys.readouterr().err
    assert ended.value.code == 2
    assert line.startswith("python -m trainers.report: error: ")
    assert message in line
    assert line.count("\n") == 1


def test_state_and_steps_of_a_run_that_goes_on_and_then_ends(make):
    folder = make(*steps(3))
    record = read_record(folder)
    assert record.state(now=1040.0) == "running"
    assert record.state(now=1030.0 + 600 + 5 * 10 + 1) == "stopped"
    text = Text(page_of(folder, now=1040.0)).text
    assert "3 of 4" in text
    assert f"last step{format_time(1030.0)}" in text
    assert "took0:20" in text
    (folder / "DONE").write_text("{}")
    assert read_record(folder).state() == "finished"
    assert "3 of 3" in Text(page_of(folder)).text


def test_planned_steps_of_a_supervised_stage_follow_from_its_epochs(make):
    lines = [{"step": n, "loss": 1.0, "epoch": n / 40} for n in range(1, 11)]
    folder = make(*lines, stage="sft", settings="epochs: 2.0\n  max_steps: null")
    assert read_record(folder).planned == 80
    (folder / "config.yaml").write_text("sft:\n  epochs: 2.0\n  max_steps: 30\n")
    assert read_record(folder).planned == 30


def test_key_figures_are_means_of_the_last_and_first_tenth(make):
    folder = make(*steps(20, truncated=0.25))
    reward, truncated = cards(read_record(folder))
    assert (reward.title, reward.value, reward.before) == ("Reward", "1.95", "0.15")
    assert (truncated.title, truncated.value) == ("Truncated", "25%")


def test_every_metric_of_a_ppo_step_has_its_chart(make):
    names = ["reward", "kl_to_reference", "policy_entropy", "policy_clip_fraction", "explained_variance"]
    names += ["response_tokens", "response_tokens_max", "truncated", "engine_trainer_gap_mean", "policy_grad_norm"]
    names += ["policy_lr", "critic_loss", "tokens_per_second", "seconds", "reward_format"]
    folder = make(*steps(4, **dict.fromkeys(names, 1.0), seconds_generate=1.0, seconds_update=3.0))
    found = sections(read_record(folder))
    charts = {chart.title: chart for section in found.values() for chart in section}
    assert set(PPO_PANELS) <= set(charts)
    assert "Other" not in found
    drawn = sorted(mark.name for chart in charts.values() for mark in chart.marks)
    assert drawn == sorted([*names, "generate", "update"])
    assert [(mark.name, mark.value) for mark in found["Time"][0].marks] == [
        ("generate", "1 s, 25%"),
        ("update", "3 s, 75%"),
    ]


def test_an_unknown_metric_is_drawn_and_what_is_no_number_is_told(make):
    folder = make(*steps(3, judge_p95=2.0, host="node-7"))
    other = sections(read_record(folder))["Other"]
    assert [(chart.title, chart.marks[0].value) for chart in other] == [("judge_p95", "2")]
    text = Text(page_of(folder)).text
    assert "host has values that are not numbers (first 'node-7'); see metrics.jsonl." in text


def test_a_run_without_steps_says_so(make):
    text = Text(page_of(make())).text
    assert "No step has been logged yet" in text
    assert "no step yet" in text
    assert "0 of 4" in text


def test_a_run_of_one_step_says_so_and_shows_a_point(make):
    folder = make(*steps(1, seconds_update=2.0))
    html = page_of(folder)
    assert "One step has been logged so far" in html
    assert 'd="M500 ' in html  # in the middle


def test_values_that_are_not_finite_are_gaps_and_are_told(make):
    lines = steps(12, loss=1.0)
    for n in (4, 5, 9):
        lines[n - 1]["loss"] = None
    folder = make(*lines, '{"step": 13, "time": 1130, "loss": NaN, "reward": 1e999, "huge": 1' + 400 * "0" + "}\n")
    record = read_record(folder)
    assert record.notes == [
        "reward is NaN or infinite at step 13.",
        "loss is NaN or infinite at steps 4 to 5, 9, 13.",
        "huge is NaN or infinite at step 13.",
    ]
    (loss,) = (chart for chart in sections(record)["Outcome"] if chart.title == "Loss")
    assert loss.marks[0].value == "not finite"
    assert loss.marks[0].gaps == [(16.67, 25.0), (58.33, 16.67), (91.67, 8.33)]
    assert loss.marks[0].line.count("M") == 3
    html = page_of(folder)
    assert not re.search(r' (d|style)="[^"]*(nan|inf)', html, re.IGNORECASE)


def test_extreme_values_and_times_are_drawn_or_gaps(make):
    extremes = [1e99, -1e99, 1e-99, 5e-324, 1e308, 0.0]
    lines = [{"step": n, "time": 1e300, "loss": value, "x": -value} for n, value in enumerate(extremes)]
    folder = make(*lines)
    assert read_record(folder).notes == ["loss is NaN or infinite at step 4.", "x is NaN or infinite at step 4."]
    assert read_record(folder).state() == "running"  # nobody knows since when
    assert not re.search(r' (d|style)="[^"]*(nan|inf)', page_of(folder), re.IGNORECASE)


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(make):
    folder = make(*steps(2), '{"step": 3, "rew')
    assert read_record(folder).steps == [1, 2]
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": "2"}\n')
    with pytest.raises(ConfigError, match=r"metrics.jsonl:2: must be a mapping with a whole number as step"):
        read_record(folder)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ConfigError, match=r"metrics.jsonl:2: is not valid JSON"):
        read_record(folder)


def test_of_a_step_logged_twice_the_last_line_counts(make):
    record = read_record(make({"step": 2, "reward": 1.0}, {"step": 1, "reward": 3.0}, {"step": 2, "reward": 5.0}))
    assert record.series["reward"].values == [3.0, 5.0]
    assert record.notes == ["Steps logged more than once, of which the last line counts: step 2."]


def test_hostile_text_stays_text(make):
    folder = make(*steps(3, **{HOSTILE: 1.0}), settings=f"steps: 4\n  note: '{HOSTILE.replace(chr(39), '')}'")
    texts = {"response": HOSTILE + "\0\x1b[31m\ud83d\u202e", "prompt": [{"role": HOSTILE, "content": HOSTILE}]}
    write_samples(folder, 4, sample(**texts, parts={HOSTILE: 1.0}, extra=HOSTILE))
    html = report([str(folder)]).read_text(encoding="utf-8")
    page = Text(html)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE + "␀␛[31m\\ud83d\u202e" in page.text
    assert "\0" not in html
    assert page.text.count(HOSTILE) >= 5


def test_best_and_worst_samples_of_the_last_and_first_step(make):
    folder = make(*steps(4))
    rewards = [0.1, 0.9, None, 0.5, 0.7, 0.3, 0.2, 0.8, 0.6, float("nan")]
    write_samples(folder, 2, sample(2, response="开头"))
    write_samples(folder, 3, sample(3, response="中间"))
    write_samples(folder, 4, *(sample(4, reward=reward, tokens=10 + n) for n, reward in enumerate(rewards)))
    view = read_samples(folder)
    assert [(group.step, group.count) for group in view.steps] == [(4, 10), (2, 1)]
    assert [one.reward for one in view.steps[0].best] == [0.9, 0.8, 0.7, 0.6]
    assert [one.tokens for one in view.steps[0].worst] == [19, 12, 10, 16]
    assert view.steps[1].worst == []
    tokens, reward = view.charts
    assert [(mark.name, mark.value) for mark in tokens.marks] == [("step 2", "mean 4"), ("step 4", "mean 14.5")]
    assert reward.note == "of the sampled responses; 2 without a finite value are left out"
    html = page_of(folder)
    assert "中间" not in html
    assert 'lang="zh-Hans">开头<' in html


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 1\n', "step-00000001.jsonl:2: is not valid JSON"),
        (json.dumps(sample(1, tokens="4")) + "\n", "step-00000001.jsonl:2: tokens: Input should be a valid integer"),
        (json.dumps({"step": 1}) + "\n", "step-00000001.jsonl:2: prompt: Field required"),
    ],
)
def test_a_line_that_is_no_sample_is_named(make, line, message):
    folder = make(*steps(1))
    write_samples(folder, 1, sample(1), line)
    with pytest.raises(ConfigError, match=message):
        read_samples(folder)


def test_a_sample_that_is_still_being_written_is_left_out(make):
    folder = make(*steps(1))
    write_samples(folder, 1, sample(1), json.dumps(sample(1))[:40])
    assert read_samples(folder).steps[0].count == 1
    write_samples(folder, 1, '{"step"')
    assert read_samples(folder) is None


def test_a_page_that_follows_a_run_is_loaded_again_until_the_run_ends(make, capsys):
    folder = make({"step": 1, "time": time.time(), "reward": 0.5})
    page = folder / "report.html"
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        assert '<meta http-equiv="refresh" content="10">' in page.read_text(encoding="utf-8")
        step = len(waits) + 1
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), "reward": 0.5 + step}) + "\n")
        if step == 3:
            (folder / "DONE").touch()

    follow([str(folder)], wait=wait)
    assert waits == [10, 10]
    final = page.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in final
    assert "step 3" in final
    begun, ended = capsys.readouterr().out.splitlines()
    assert begun.startswith(f"report: {page}, written every 10 s")
    assert ended == "report: finished"


def test_ctrl_c_ends_following_and_leaves_a_page_that_stays(make):
    folder = make({"step": 1, "time": time.time(), "reward": 0.5})

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        follow([str(folder)], wait=interrupt)
    assert end.value.code == 130
    assert 'http-equiv="refresh"' not in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(make, chromium, width, scheme):
    from benchmarks.pictures.browser import Page

    names = {f"a_metric_with_a_rather_long_name_{n}": 1.0 for n in range(3)}
    folder = make(*steps(30, loss=None, seconds_update=1.0, **names), name="a-rather-long-name/" + 60 * "x")
    write_samples(folder, 4, sample(response="多" * 500), sample(response="x" * 500), sample(response=HOSTILE))
    page = Page(chromium, width, 800, "en-US", scheme)
    page.show(report([str(folder)]))
    assert page.overflow() == 0
    assert page.faint() == []
    page.evaluate("document.querySelector('.plot').focus()")
    page.command("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    assert page.text("#tip").split() == ["step", "29", "2.9"]
    grounds = {"light": "rgb(250, 250, 248)", "dark": "rgb(19, 22, 23)"}
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds[scheme]
    assert page.complaints() == []
    page.close()
