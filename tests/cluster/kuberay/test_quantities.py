from __future__ import annotations

from decimal import Decimal

import pytest

from cluster.kuberay.quantities import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", "0.5"), ("4", "4"), (4, "4"), (0.5, "0.5"), ("16Gi", str(16 * 2**30)), ("1e3", "1000"), (".5k", "500")],
)
def test_a_quantity_is_a_number(text, number):
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "16 Gi", "16gb", "x", True, None, [1]])
def test_anything_else_is_none(text):
    assert quantity(text) is None
