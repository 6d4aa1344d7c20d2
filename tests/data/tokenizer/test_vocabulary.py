"""A tokenizer that was extended: old ids stay, new pieces are used, texts come back; of bytes and of characters."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer

from data.tables import PRETRAIN, DataError
from data.tokenizer.__main__ import main
from data.tokenizer.training import train_tokenizer, wrap
from data.tokenizer.vocabulary import extend, old_pieces

PHRASES = ["感冒", "板蓝根颗粒", "每日三次", "高血压", "阿莫西林", "布洛芬", "医院就诊", "饭后服用"]
OLD = ["The patient has a cold. Take it three times a day.", "hello world, the cold day"] * 3


def medical(count: int = 200) -> list[str]:
    rng = random.Random(1)
    return ["，".join(rng.choices(PHRASES, k=6)) + "。" for _ in range(count)]


def of_bytes() -> Tokenizer:
    return train_tokenizer(OLD, [], 280).backend_tokenizer


def of_characters() -> Tokenizer:
    """As LLaMA's: characters, a mark for blanks, and 256 bytes for what is unknown."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    marks = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(OLD, BpeTrainer(vocab_size=310, special_tokens=marks[:4], show_progress=False))
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for mark in marks[4:]:
        vocabulary[mark] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(state))


@pytest.mark.parametrize("make", [of_bytes, of_characters])
def test_old_ids_stay_and_new_pieces_are_used(make) -> None:
    old = make()
    new = extend(old, medical, 60)
    size = old.get_vocab_size()
    assert new.get_vocab_size() == size + 60
    assert sorted(new.get_vocab().values()) == list(range(size + 60))
    for text in OLD:
        assert new.encode(text).ids == old.encode(text).ids
    for text in [*medical(20), "未见过的字：𠮷😀", "cold 感冒 day"]:
        ids = new.encode(text, add_special_tokens=False).ids
        assert new.decode(ids) == text
    tokens = [sum(len(one.encode(text).ids) for text in medical(20)) for one in (old, new)]
    assert tokens[1] < tokens[0] / 2
    assert old.get_vocab_size() == size


@pytest.mark.parametrize("make", [of_bytes, of_characters])
def test_new_pieces_are_made_of_old_ones(make) -> None:
    old = make()
    new = extend(old, medical, 60)
    pieces = old_pieces(old, new)
    assert list(pieces) == list(range(old.get_vocab_size(), new.get_vocab_size()))
    assert max(max(parts) for parts in pieces.values()) < old.get_vocab_size()
    whole = [number for number in pieces if "\ufffd" not in new.decode([number])]
    assert len(whole) > 5
    for number in whole:
        assert old.decode(pieces[number]) == new.decode([number])


def test_characters_come_first_where_bytes_stand_for_them() -> None:
    old = of_characters()
    new = extend(old, medical, 20)
    single = [piece for piece in new.get_vocab().keys() - old.get_vocab().keys() if len(piece) == 1]
    assert len(single) == 10
    assert "，" in single


def test_what_cannot_be_extended_is_refused() -> None:
    with pytest.raises(DataError, match="Unigram model; only byte-pair"):
        extend(Tokenizer(Unigram([("a", 0.0)])), medical, 4)
    with pytest.raises(DataError, match=r"give \d+ new tokens, not 4000"):
        extend(of_bytes(), medical, 4000)
    other = train_tokenizer(medical(), [], 290).backend_tokenizer
    with pytest.raises(DataError, match="do not match"):
        old_pieces(of_bytes(), other)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "prepared" / "part-00000.parquet"
    table.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([{"text": text} for text in medical()], PRETRAIN), table)
    given = ["--input", str(table.parent), "--out"]
    assert main(["train", "--vocabulary", "290", *given, str(tmp_path / "trained")]) == 0
    trained = AutoTokenizer.from_pretrained(tmp_path / "trained")
    assert len(trained) == 290
    assert trained.decode(trained.encode("感冒了", add_special_tokens=False)) == "感冒了"
    wrap(of_bytes()).save_pretrained(tmp_path / "old")
    extending = ["extend", "--tokenizer", str(tmp_path / "old"), "--more", "30"]
    assert main([*extending, *given, str(tmp_path / "more")]) == 0
    more, old = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("more", "old"))
    assert len(more) == len(old) + 30
    assert (more.chat_template, more.eos_token_id) == (old.chat_template, old.eos_token_id)
    assert '"vocabulary": 310' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*extending, *given, str(tmp_path / "more")])
    assert "already exists; name a new folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*extending, "--input", str(tmp_path), "--out", str(tmp_path / "none")])
    assert "no part-*.parquet here" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["more", "old", "prepared", "trained"]
