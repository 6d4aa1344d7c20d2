"""python -m benchmarks.gpu_check [--device cuda|cpu] [--only NAME …] [--skip NAME …] [--json FILE] [--list]

Checks and measures on one GPU what training relies on, cheapest first, one JSON line each: exact attention on packed
rows, log-probabilities of large vocabularies, every ZeRO stage against plain AdamW, one learning step of policy and
critic, and what models of 1 to 7 billion parameters train at. Needs torch 2.11 or newer, Transformers and DeepSpeed, no
Ray or vLLM. With `--device cpu` the same checks run on small sizes, so that they are tested where there is no GPU.

Each check has its own time limit: one that exceeds it, or ends its process, is reported and the others go on in a new
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

PROG = "python -m benchmarks.gpu_check"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the checks asked for."""
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
    checks = [CHECKS[name] for name in options.only if name not in options.skip]
    failed = False
    lines = []
    for result in run_checks(checks, options.device):
        lines.append(json.dumps(result))
        print(lines[-1], flush=True)
        failed |= result["status"] == "failed"
        if options.json:
            options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
