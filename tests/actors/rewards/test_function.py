from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from actors.rewards.config import FunctionRewardConfig
from actors.rewards.function import PythonReward
from actors.rewards.sample import RewardFunctionError, Sample
from configs.errors import ConfigError

MakeSamples = Callable[[int], list[Sample]]
MakeReward = Callable[..., PythonReward]


@pytest.fixture
def reward_function(tmp_path: Path) -> MakeReward:
    """`reward_function(code, **settings)`: the reward_function named `polite` of a file with that code."""

    def make(code: str, **settings: str) -> PythonReward:
        (tmp_path / "mine.py").write_text(dedent(code), encoding="utf-8")
        return PythonReward("polite", FunctionRewardConfig(file=str(tmp_path / "mine.py"), **settings))

    return make


def test_function_of_all_samples_and_of_one_give_the_same(
    reward_function: MakeReward, make_samples: MakeSamples
) -> None:
    every = reward_function(
        "def reward(samples):\n    return [len(s['response']) + 0.5 * s['finished'] for s in samples]\n"
    )
    one = reward_function(
        "def each(sample):\n    return len(sample['response']) + 0.5 * sample['finished']\n", function="each"
    )
    samples = make_samples(5)
    expected = [len(sample["response"]) + 0.5 * sample["finished"] for sample in samples]
    assert every.score(samples) == one.score(samples) == expected
    assert every.score([]) == one.score([]) == []
    assert one.name == "polite"


def test_every_field_of_a_sample_arrives(reward_function: MakeReward, make_samples: MakeSamples) -> None:
    code = """
        def reward(sample):
            assert sample["prompt"][-1]["role"] == "user"
            return 100 * sample["prompt_id"] + 10 * sample["sample"] + (sample["row"]["reference"] == "答案1")
    """
    assert reward_function(code).score(make_samples(4)) == [0.0, 11.0, 100.0, 110.0]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("[True, False]", [1.0, 0.0]),
        ("(1, Fraction(1, 2))", [1.0, 0.5]),
        ("numpy.array([0.25, 2.0], numpy.float32)", [0.25, 2.0]),
        ("[numpy.bool_(True), numpy.float64(3)]", [1.0, 3.0]),
    ],
)
def test_kinds_of_numbers(
    reward_function: MakeReward, make_samples: MakeSamples, returned: str, expected: list[float]
) -> None:
    code = f"import numpy\nfrom fractions import Fraction\ndef reward(samples):\n    return {returned}\n"
    rewards = reward_function(code).score(make_samples(2))
    assert rewards == expected
    assert all(type(reward) is float for reward in rewards)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("math.nan", "nan"),
        ("-math.inf", "-inf"),
        ("None", "None"),
        ("'1.0'", "'1.0'"),
        ("[1.0]", r"\[1.0\]"),
        ("1j", "1j"),
        ("10 ** 400", "1000000"),
        ("1e39", "1e\\+39"),
    ],
)
def test_what_is_no_finite_number_names_its_sample(
    reward_function: MakeReward, make_samples: MakeSamples, value: str, shown: str
) -> None:
    every = reward_function(f"import math\ndef reward(samples):\n    return [0.0, 0.0, {value}, 0.0]\n")
    with pytest.raises(
        RewardFunctionError,
        match=f"^reward 'polite': returned {shown}.* for prompt 1 sample 0 "
        r"\(prompt '病人1头痛怎么办？', response '第2个回答：请及时就医。'\); return one finite number a sample$",
    ):
        every.score(make_samples(4))
    one = reward_function(f"import math\ndef reward(sample):\n    return {value} if sample['prompt_id'] else 0.0\n")
    with pytest.raises(RewardFunctionError, match=f"returned {shown}.* for prompt 1 sample 0 "):
        one.score(make_samples(4))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0] * 3", "returned 3 rewards for 4 samples, of which the first without one is prompt 1 sample 1 "),
        ("[1.0] * 5", "returned 5 rewards for 4 samples, of which the last is prompt 1 sample 1 "),
        ("None", "returned None for 4 samples, from prompt 0 sample 0 to prompt 1 sample 1; return a list"),
        ("1.0", "returned 1.0 for 4 samples"),
        ("{0: 1.0}", "returned {0: 1.0} for 4 samples"),
        ("(1.0 for s in samples)", "returned <generator object"),
    ],
)
def test_wrong_count_or_no_list(
    reward_function: MakeReward, make_samples: MakeSamples, returned: str, message: str
) -> None:
    with pytest.raises(RewardFunctionError) as failure:
        reward_function(f"def reward(samples):\n    return {returned}\n").score(make_samples(4))
    assert str(failure.value).startswith(f"reward 'polite': {message}")


def test_exception_names_line_and_sample_and_is_chained(reward_function: MakeReward, make_samples: MakeSamples) -> None:
    code = """
        def helper(sample):
            return {"答案0": 1.0}.get(sample["row"]["reference"], 0.0) / (sample["prompt_id"] != 5)

        def reward(samples):
            return [helper(sample) for sample in samples]
    """
    failing = reward_function(code)
    assert failing.score(make_samples(10)) == [1.0] + [0.0] * 9
    with pytest.raises(RewardFunctionError) as failure:
        failing.score(make_samples(16))
    text = str(failure.value)
    assert "mine.py:3: raised ZeroDivisionError: float division by zero on prompt 5 sample 0 (prompt '病人5" in text
    assert "\n" not in text
    assert isinstance(failure.value.__cause__, ZeroDivisionError)

    alone = reward_function("def reward(sample):\n    return sample['row']['age']\n")
    with pytest.raises(
        RewardFunctionError, match=r"mine.py:2: raised KeyError: 'age' on prompt 0 sample 0 "
    ) as failure:
        alone.score(make_samples(2))
    assert isinstance(failure.value.__cause__, KeyError)


def test_exception_that_only_all_samples_give_names_their_range(
    reward_function: MakeReward, make_samples: MakeSamples
) -> None:
    code = """
        def reward(samples):
            if len(samples) == 6:
                raise ValueError("six\\nare too many")
            if len(samples) < 6:
                raise RuntimeError("too few")
    """
    with pytest.raises(RewardFunctionError) as failure:
        reward_function(code).score(make_samples(6))
    expected = (
        "mine.py:4: raised ValueError: six are too many on 6 samples, from prompt 0 sample 0 to prompt 2 sample 1"
    )
    assert str(failure.value).endswith(expected)


def test_leaving_the_program_is_a_failure_too(reward_function: MakeReward, make_samples: MakeSamples) -> None:
    with pytest.raises(RewardFunctionError, match=r"raised SystemExit: 3 on prompt 0 sample 0"):
        reward_function("import sys\ndef reward(sample):\n    sys.exit(3)\n").score(make_samples(1))


def test_function_cannot_change_the_samples(reward_function: MakeReward, make_samples: MakeSamples) -> None:
    samples = make_samples(2)
    reward_function("def reward(sample):\n    sample['prompt'].clear(); sample['row'].clear(); return 0\n").score(
        samples
    )
    assert samples == make_samples(2)


def test_long_and_broken_texts_are_shown_on_one_line(reward_function: MakeReward, make_samples: MakeSamples) -> None:
    samples = make_samples(1)
    samples[0]["response"] = "一" * 60 + "二"
    samples[0]["prompt"] += [{"role": "assistant", "content": "嗯"}, {"role": "user", "content": "那\n\x1b[2J呢？"}]
    with pytest.raises(RewardFunctionError) as failure:
        reward_function("def reward(sample):\n    return None\n").score(samples)
    expected = rf"(prompt '那\n\x1b[2J呢？', response '{'一' * 60}'...)"
    assert expected in str(failure.value)


def test_missing_file_and_missing_function(tmp_path: Path, reward_function: MakeReward) -> None:
    with pytest.raises(ConfigError, match=r"^reward 'polite': there is no file .*nowhere.py; give the Python file"):
        PythonReward("polite", FunctionRewardConfig(file=str(tmp_path / "nowhere.py")))
    with pytest.raises(ConfigError, match=r"mine.py: there is no function 'reward'; it has score, Helper$"):
        reward_function("import math\ndef score(sample):\n    return 0\nclass Helper:\n    pass\n")
    with pytest.raises(ConfigError, match=r"mine.py: there is no function 'reward'; it defines none$"):
        reward_function("reward = 1.0\n")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def reward():\n    pass", "reward(): takes other parameters; write reward(samples), which returns"),
        ("def reward(answers):\n    pass", "reward(answers): takes other parameters"),
        ("def reward(sample, weight):\n    pass", "reward(sample, weight): takes other parameters"),
        ("def reward(*samples):\n    pass", "reward(*samples): does not take its parameter by position"),
        ("def reward(*, sample):\n    pass", "reward(*, sample): does not take its parameter by position"),
        ("async def reward(sample):\n    pass", "reward is a coroutine or generator"),
        ("def reward(samples):\n    yield 1.0", "reward is a coroutine or generator"),
        ("reward = max", "reward does not tell its parameters"),
    ],
)
def test_wrong_signature(reward_function: MakeReward, code: str, message: str) -> None:
    with pytest.raises(ConfigError) as failure:
        reward_function(code)
    assert f"mine.py: {message}" in str(failure.value)
    assert str(failure.value).startswith("reward 'polite': ")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("\nimport chimed_has_no_such_module", "mine.py:2: importing the file raised ModuleNotFoundError: No module"),
        ("x = 1\ndef reward(sample)\n    return 0", "mine.py:2: importing the file raised SyntaxError: expected ':'"),
        ("x = {}\n\nx['missing']", "mine.py:3: importing the file raised KeyError: 'missing'; repair it"),
        ("raise SystemExit(2)", "mine.py:1: importing the file raised SystemExit: 2"),
    ],
)
def test_exception_while_importing(reward_function: MakeReward, code: str, message: str) -> None:
    with pytest.raises(ConfigError) as failure:
        reward_function(code)
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)
    assert failure.value.__cause__ is not None


def test_two_files_of_one_name_stay_apart_and_may_define_dataclasses(tmp_path: Path, make_samples: MakeSamples) -> None:
    judges = []
    for value in (1, 2):
        file = tmp_path / str(value) / "json.py"  # as a module of the standard library is called, too
        file.parent.mkdir()
        file.write_text(
            "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
            f"@dataclass\nclass Rule:\n    value: float = {value}\n\n"
            "def reward(sample):\n    return Rule().value\n"
        )
        judges.append(PythonReward("same", FunctionRewardConfig(file=str(file))))
    assert [reward_function.score(make_samples(1)) for reward_function in judges] == [[1.0], [2.0]]
    import json

    assert json.loads("[1]") == [1]


def test_file_below_runs_is_found_where_runs_are(runs: Path, make_samples: MakeSamples) -> None:
    runs.mkdir()
    (runs / "mine.py").write_text("def reward(sample):\n    return -1\n")
    assert PythonReward("x", FunctionRewardConfig(file="runs/mine.py")).score(make_samples(1)) == [-1.0]


def test_the_example_of_the_docs(reward_function: MakeReward, make_samples: MakeSamples) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")
    samples = make_samples(5)  # of which 0 and 3 are cut off
    samples[1]["response"] = "多休息。"
    samples[4]["response"] = "答案4，尽快去医院。"
    example = page.split("```python\n")[1].split("```")[0]
    assert reward_function(example).score(samples) == [0.0, 0.0, 0.5, 0.0, 1.0]
