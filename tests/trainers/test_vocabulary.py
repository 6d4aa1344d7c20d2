"""A model extended to more pieces: what it said before it says still, new rows are means, every engine loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data.tables import PRETRAIN
from data.tokenizer.__main__ import main as train_or_extend
from data.tokenizer.training import train_tokenizer
from data.tokenizer.vocabulary import old_pieces
from trainers.vocabulary import main

MORE = 24
TEXTS = [f"第{n}例：高血压，阿莫西林，每日三次。" for n in range(40)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    pq.write_table(pa.Table.from_pylist([{"text": text} for text in TEXTS], PRETRAIN), folder / "part-00000.parquet")
    return folder


@pytest.fixture
def extended(make_model: Callable[..., Path], prepared: Path, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A model's folder and that of the same model extended."""

    def make(tied: bool) -> tuple[Path, Path]:
        old = make_model("small")
        if not tied:
            old = untied(old, tmp_path / "old")
        extending = ["extend", "--tokenizer", str(old), "--input", str(prepared), "--more", str(MORE)]
        train_or_extend([*extending, "--out", str(tmp_path / "tokenizer")])
        main(["--model", str(old), "--tokenizer", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "model")])
        return old, tmp_path / "model"

    return make


def untied(folder: Path, out: Path) -> Path:
    """A model of the same shape with an output head of its own."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig.from_pretrained(folder, tie_word_embeddings=False)).save_pretrained(out)
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out


@pytest.mark.parametrize("tied", [True, False])
def test_old_pieces_stay_and_new_ones_are_means(extended: Callable[..., tuple[Path, Path]], tied: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = extended(tied)
    old, new = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in folders)
    size = len(before)
    assert (len(after), new.config.vocab_size) == (size + MORE, size + MORE)
    ids = torch.tensor([before.encode("病人头痛", add_special_tokens=False)])
    with torch.no_grad():
        torch.testing.assert_close(new(ids).logits[..., :size], old(ids).logits)
    pieces = old_pieces(before.backend_tokenizer, after.backend_tokenizer)
    for tables in ("get_input_embeddings", "get_output_embeddings"):
        grown, rows = getattr(new, tables)().weight, getattr(old, tables)().weight
        for number, parts in pieces.items():
            torch.testing.assert_close(grown[number], rows[parts].mean(dim=0))
    assert (new.get_output_embeddings().weight is new.get_input_embeddings().weight) is tied
    text = TEXTS[3]
    assert after.decode(after.encode(text, add_special_tokens=False)) == text
    assert len(after.encode(text)) < len(before.encode(text))


def test_a_tokenizer_that_is_no_extension_is_refused(
    make_model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model("plain")
    with pytest.raises(SystemExit):
        main(["--model", str(model), "--tokenizer", str(model), "--out", str(tmp_path / "out")])
    assert "has no pieces that the model's tokenizer lacks" in capsys.readouterr().err
    train_tokenizer(TEXTS, [], 280).save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit):
        main(["--model", str(model), "--tokenizer", str(tmp_path / "other"), "--out", str(tmp_path / "out")])
    assert "the tokenizers do not match" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_vllm_loads_it_and_agrees(extended: Callable[..., tuple[Path, Path]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from actors.config import EngineConfig
    from actors.inference.engine import Engine

    _, folder = extended(True)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.encode("每日三次，高血压", add_special_tokens=False)
    assert max(prompt) >= len(tokenizer) - MORE
    engine = Engine(str(folder), EngineConfig(max_model_len=64, kv_cache_bytes=2**24))
    try:
        answer = engine.generate([prompt], seeds=[1], max_new_tokens=12)[0]
    finally:
        engine.close()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer.tokens])).logits[0].log_softmax(-1)
    places = torch.arange(len(prompt) - 1, len(prompt) + len(answer.tokens) - 1)
    expected = logits[places, torch.tensor(answer.tokens)].numpy()
    np.testing.assert_allclose(answer.logprobs, expected, atol=1e-4)
