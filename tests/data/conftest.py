"""A small clinic, built once for all tests of `data`."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.clinic.build import Clinic, Sizes, build, make_clinic
from data.clinic.knowledge import load_knowledge

SMALL = Sizes(
    pretrain=8000,
    sft=2500,
    preference=800,
    prompts=200,
    pretrain_heldout=40,
    sft_heldout=60,
    preference_heldout=80,
    prompts_heldout=30,
    ner_heldout=40,
    choice_heldout=80,
    open_heldout=30,
    vocabulary=3072,
)


@pytest.fixture(scope="session")
def small_sizes() -> Sizes:
    return SMALL


@pytest.fixture(scope="session")
def clinic() -> Clinic:
    return make_clinic(load_knowledge(), seed=3, sizes=SMALL)


@pytest.fixture(scope="session")
def clinic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "clinic"
    build(out, seed=3, sizes=SMALL)
    return out
