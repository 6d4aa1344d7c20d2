"""What every test starts from: runs in a folder of its own, and a Ray that asks for no token."""

from __future__ import annotations

import gc
import logging
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from configs.logs import LOGGERS

if TYPE_CHECKING:
    from hub import Hub
    from transformers import PreTrainedTokenizerBase

    from benchmarks.pictures.browser import Chromium

# Before anything imports ray, which else makes a token in the home folder with its first cluster.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that runs the tests in the background makes them ignore Ctrl-C, and with them the commands that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


TEXTS = [f"第{n}号病人头痛，建议多休息，按时服药。" * (1 + n % 3) for n in range(40)]
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "context": 512,
}


def chat(n: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"病人{n}头痛怎么办"},
        {"role": "assistant", "content": "多休息，" * (1 + n % 4)},
    ]


def pair(n: int) -> dict[str, Any]:
    flaw = ("rude", "cut_off")[n % 2]
    rejected = "别烦我，自己查。" if flaw == "rude" else "建议多休"
    return {"prompt": chat(n)[:1], "chosen": "建议多休息，按时服药。", "rejected": rejected, "flaw": flaw}


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `runs/...` means in this test."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("CHIMED_RUNS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def logs() -> None:
    """Undoes what commands of earlier tests configured, and lets `caplog` see INFO of this project's packages."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.INFO)
    logging.getLogger("ray.serve").filters.clear()  # `python -m serve` adds one


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Limits the size, in bytes, of the files that this process writes: beyond it stands for a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray cluster with 8 logical CPUs, started once for all tests that ask for it.

    Its workers keep the CHIMED_RUNS of the test that started it: give actors absolute paths.
    """
    from cluster.connect import connect

    with connect(num_cpus=8):
        yield


@pytest.fixture(scope="session")
def world() -> Iterator[None]:
    """This process as the only rank of a torch.distributed world, ready for DeepSpeed."""
    import deepspeed  # noqa: F401 - is imported with the first engine otherwise
    import torch

    from actors.distributed.devices import join_world, prepare_process

    prepare_process(threads=1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    join_world(0, 1, "127.0.0.1", port, timeout_s=60)
    _exempt_modules_from_collection()
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    from data.tokenizer.training import train_tokenizer

    return train_tokenizer(TEXTS, names=["头痛"], vocabulary=290)


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A folder with `tokenizer/`, `model/` and the tables of all three stages, each split `train` and `heldout`."""
    import pyarrow as pa

    from actors.config import ArchitectureConfig
    from actors.modeling.models import new_causal_lm
    from data.tables import PREFERENCE, PRETRAIN, SFT, write_table
    from trainers.runs.export import export_model

    folder = tmp_path_factory.mktemp("clinic")
    tokenizer.save_pretrained(folder / "tokenizer")
    ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    model = new_causal_lm(ArchitectureConfig(**ARCHITECTURE), len(tokenizer), *ids, seed=1)
    export_model(folder / "model", tokenizer, model.save_pretrained)
    for split, rows in (("train", range(32)), ("heldout", range(32, 40))):
        texts = [{"text": TEXTS[n]} for n in rows]
        chats = [{"messages": chat(n), "task": "qa"} for n in rows]
        for name, schema, table in (
            ("pretrain", PRETRAIN, texts),
            ("sft", SFT, chats),
            ("preference", PREFERENCE, [pair(n) for n in rows]),
        ):
            write_table(pa.Table.from_pylist(table, schema), folder / f"{name}.{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Callable[..., Path]:
    """Writes a Llama with random weights and the tokenizer to a folder; the same for the same arguments."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    root = tmp_path_factory.mktemp("models")

    def make(name: str, seed: int = 0, reward: bool = False, **config: Any) -> Path:
        if not (root / name).exists():
            torch.manual_seed(seed)
            settings = LlamaConfig(
                vocab_size=len(tokenizer),
                tie_word_embeddings=True,
                initializer_range=0.2,  # ten times the usual: distributions sharp enough to tell two models apart
                pad_token_id=tokenizer.pad_token_id,
                **{**SHAPE, "max_position_embeddings": 256, **({"num_labels": 1} if reward else {}), **config},
            )
            model = (LlamaForSequenceClassification if reward else LlamaForCausalLM)(settings)
            model.save_pretrained(root / name)
            tokenizer.save_pretrained(root / name)
        return root / name

    return make


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub for this process, which has an empty cache in `tmp_path`."""
    from hub import running
    from huggingface_hub import constants

    from data.hub import pinned

    with running() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        pinned.cache_clear()
        yield found
    pinned.cache_clear()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    from benchmarks.pictures.browser import PROGRAMS, running

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium; apt-get install chromium")
    with running(program, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def _exempt_modules_from_collection() -> None:
    """Exempts all objects that exist from garbage collection.

    Each full collection, of which DeepSpeed starts one for every engine, otherwise walks the millions of objects of
    torch, transformers and Ray.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    _exempt_modules_from_collection()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the tests, and marks those that pytest-xdist must run in one process: a file's, and the endpoint's."""
    uses_world = {item.path for item in items if "world" in getattr(item, "fixturenames", ())}
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")}
    # vLLM's engine joins this process's torch.distributed world and, when it is closed, ends it: so ours comes first.
    # The processes take files in this order, so that none is left with a slow one at the end.
    items.sort(
        key=lambda item: (
            item.path not in uses_world,
            item.path not in slow,
            "world" not in getattr(item, "fixturenames", ()),
        )
    )
    for item in items:
        shares_endpoint = "endpoint" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("endpoint" if shares_endpoint else item.nodeid.partition("::")[0]))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
