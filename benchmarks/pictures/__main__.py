"""python -m benchmarks.pictures: draws the pictures of the README from the runs of `make quickstart`.

Writes learning_curves.svg from the runs' metrics. With Chromium (`--chat`), also serves the models of SFT and PPO, asks
both a question on the chat page, and writes screenshots of it, chat-light.png and chat-dark.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.pictures.chat import photograph
from benchmarks.pictures.curves import draw, quickstart_panels
from configs.errors import one_line_errors
from storage.paths import require_dir, runs_root

PROG = "python -m benchmarks.pictures"


def main() -> None:
    """Writes the pictures and prints their paths."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--runs", metavar="DIR", help="the quickstart's runs (default: quickstart in the runs folder)")
    parser.add_argument(
        "--out", metavar="DIR", default="docs/pictures", help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--chat", action="store_true", help="also take screenshots of the chat page; needs Chromium")
    options = parser.parse_args()
    with one_line_errors(PROG):
        runs = require_dir(options.runs or runs_root() / "quickstart", "--runs", "run `make quickstart` first")
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        curves = out / "learning_curves.svg"
        curves.write_text(draw(quickstart_panels(runs)), encoding="utf-8")
        print(curves)
        if options.chat:
            for path in photograph({"ppo": runs / "ppo/model", "sft": runs / "sft/model"}, out):
                print(path)


if __name__ == "__main__":
    main()
