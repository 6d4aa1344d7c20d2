from __future__ import annotations

from typing import Any

import pytest

from configs.errors import ConfigError
from data.tokenizer.stops import single_tokens


def test_special_tokens_and_texts_of_one_token_are_found(tokenizer: Any) -> None:
    ids = single_tokens(tokenizer, ["</s>", "\n", "[bot]:"], "rollout.stop")
    assert ids[0] == tokenizer.eos_token_id
    assert [tokenizer.decode([token]) for token in ids] == ["</s>", "\n", "[bot]:"]


@pytest.mark.parametrize("text", ["", "多休息，按时服药。"])
def test_what_is_no_single_token_is_refused_by_name(tokenizer: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=f"rollout.stop: '{text}' is [0-9]+ tokens"):
        single_tokens(tokenizer, [text], "rollout.stop")
