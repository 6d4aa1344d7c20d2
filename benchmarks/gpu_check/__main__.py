"""python -m benchmarks.gpu_check [--device cuda|cpu] [--only NAME …] [--skip NAME …] [--json FILE] [--list]

Checks and measures the building blocks of training on one GPU, cheapest first, one JSON line each: exact attention on
packed rows, log-probabilities of large vocabularies, every ZeRO stage against plain AdamW, one training step of policy
and critic, and the speed of training models of 1 to 7 billion parameters. Needs torch 2.11 or newer, Transformers, and
DeepSpeed, but not Ray or vLLM. With `--device cpu` the same checks run on small sizes, to test them without a GPU.

Each check has a time limit. A check that exceeds it, or ends its process, is reported, and the others continue in a new
process. The exit status is 1 if any check failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_check.checks import CHECKS
from benchmarks.gpu_check.runner import run_checks
from configs.errors import one_line_errors

PROG = "python -m benchmarks.gpu_check"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the selected checks; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS), metavar="NAME")
    parser.add_argument("--skip", nargs="+", choices=list(CHECKS), default=[], metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines to FILE as well")
    parser.add_argument("--list", action="store_true", help="print the checks with their time limits and exit")
    options = parser.parse_args(argv)
    if options.list:
        for check in CHECKS.values():
            print(f"{check.name:14} {check.limit_s:4.0f} s  {check.purpose}")
        return 0
    checks = [check for name, check in CHECKS.items() if name in options.only and name not in options.skip]
    failed = False
    lines = []
    with one_line_errors(PROG):
        for result in run_checks(checks, options.device):
            lines.append(json.dumps(result))
            print(lines[-1], flush=True)
            failed |= result["status"] == "failed"
            if options.json:
                options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
