"""Types of command-line arguments, for argparse, which prints a function's name in its messages."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """Parses an integer of at least 1. Raises ArgumentTypeError for a smaller number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number
