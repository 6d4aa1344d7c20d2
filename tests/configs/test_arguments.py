from __future__ import annotations

import argparse

import pytest

from configs.arguments import count


def test_a_count_is_at_least_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="prog")
    parser.add_argument("--limit", type=count)
    assert parser.parse_args(["--limit", "12"]).limit == 12
    for text, said in (
        ("0", "must be at least 1, found 0"),
        ("-3", "must be at least 1"),
        ("x", "invalid count value"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--limit={text}"])
        assert f"argument --limit: {said}" in capsys.readouterr().err
