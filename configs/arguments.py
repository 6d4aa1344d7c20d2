"""Argument types for argparse, which prints the name of a type's function in its error messages."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """Parses an integer of at least 1.

    Raises:
        argparse.ArgumentTypeError: the integer is smaller.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number
