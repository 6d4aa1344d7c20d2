"""Builds a sample clinic: all tables, the tokenizer, and a manifest, in one folder that is written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from data import tables
from data.clinic import phrasing
from data.clinic.dialogues import Row, make_sft
from data.clinic.knowledge import ATTRIBUTES, CONDITIONS, Knowledge, load_knowledge
from data.clinic.leaks import check_leaks
from data.clinic.ner import make_sentences
from data.clinic.preferences import make_preferences, make_prompts
from data.clinic.pretraining import make_documents
from data.clinic.questions import make_choices, make_open
from data.clinic.split import Split, make_split
from data.tables import DataError, write_table
from storage.durable import writing

MANIFEST: Final = "manifest.json"
SCHEMAS: Final = {
    "pretrain": tables.PRETRAIN,
    "sft": tables.SFT,
    "preference": tables.PREFERENCE,
    "prompts": tables.PROMPTS,
    "ner": tables.NER,
    "choice": tables.CHOICE,
    "open": tables.OPEN,
}


@dataclass(frozen=True)
class Sizes:
    """Number of rows of each table, and the vocabulary size of the tokenizer."""

    pretrain: int = 48000
    sft: int = 15000
    preference: int = 8000
    prompts: int = 2000
    pretrain_heldout: int = 200
    sft_heldout: int = 400
    preference_heldout: int = 300
    prompts_heldout: int = 96
    ner_heldout: int = 200
    choice_heldout: int = 300
    open_heldout: int = 150
    vocabulary: int = 3584


@dataclass(frozen=True)
class Clinic:
    """The rows of every table by name, such as "sft.train", and the split that they follow."""

    split: Split
    rows: dict[str, list[Row]]


def make_clinic(knowledge: Knowledge, seed: int, sizes: Sizes) -> Clinic:
    """Generates all tables and checks that no held-out data is in the training data; a pure function of its arguments.

    Raises:
        DataError: there is a leak (see `leaks.check_leaks`).
    """
    split = make_split(knowledge, seed)
    documents = make_documents(knowledge, seed, sizes.pretrain)
    rows: dict[str, list[Row]] = {
        "pretrain.train": [{"text": text} for text in documents],
        "pretrain.heldout": [
            {"text": text} for text in make_documents(knowledge, seed, sizes.pretrain_heldout, apart_from=documents)
        ],
        "sft.train": make_sft(split, seed, sizes.sft, False),
        "sft.heldout": make_sft(split, seed, sizes.sft_heldout, True),
        "preference.train": make_preferences(split, seed, sizes.preference, False),
        "prompts.train": make_prompts(split, seed, sizes.prompts, False),
        "prompts.heldout": make_prompts(split, seed, sizes.prompts_heldout, True),
        "ner.heldout": [s.as_row() for s in make_sentences(split, seed, sizes.ner_heldout, True)],
        "choice.heldout": make_choices(split, seed, sizes.choice_heldout),
        "open.heldout": make_open(split, seed, sizes.open_heldout),
    }
    rows["preference.heldout"] = make_preferences(split, seed, sizes.preference_heldout, True, _answers(rows))
    check_leaks(rows, split)
    return Clinic(split, rows)


def build(
    out: Path, seed: int, sizes: Sizes, path: Path = CONDITIONS, chat: str = "chimed"
) -> tuple[dict[str, Any], bool]:
    """Writes a clinic to the folder `out`, or verifies that the folder already holds it.

    Returns:
        The manifest, and whether the clinic was built by this call.

    Raises:
        DataError: `out` is a file, or holds anything other than this complete clinic.
        DiskError: the clinic cannot be written.
    """
    knowledge = load_knowledge(path)
    options = {"seed": seed, "sizes": asdict(sizes), "chat": chat, "generators": _fingerprint(path)}
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        return _find(out, options), False
    clinic = make_clinic(knowledge, seed, sizes)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            manifest = _write(clinic, aside, options, sizes.vocabulary, chat)
            aside.chmod(0o755)
            os.replace(aside, out)
        except BaseException:
            shutil.rmtree(aside)
            raise
    return manifest, True


def _answers(rows: dict[str, list[Row]]) -> frozenset[str]:
    """Returns every answer in the training tables."""
    chats = [row["messages"] for row in rows["sft.train"]]
    chats += [row["prompt"] for name in ("preference.train", "prompts.train") for row in rows[name]]
    answers = {message["content"] for chat in chats for message in chat if message["role"] == "assistant"}
    return frozenset(answers | {row[side] for row in rows["preference.train"] for side in ("chosen", "rejected")})


def _write(clinic: Clinic, folder: Path, options: dict[str, Any], vocabulary: int, chat: str) -> dict[str, Any]:
    # Training a tokenizer imports transformers, which takes seconds and is not needed if the clinic exists already.
    from data.tokenizer.training import train_tokenizer

    for name, rows in clinic.rows.items():
        write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[name.split(".")[0]]), folder / f"{name}.parquet")
    whole = [*entity_names(clinic.split.knowledge), *phrasing.KEYWORDS]
    tokenizer = train_tokenizer(_training_texts(clinic.rows), whole, vocabulary, chat)
    tokenizer.save_pretrained(folder / "tokenizer")
    manifest = {
        **options,
        "note": "synthetic text of a made-up clinic; not medical advice",
        "rows": {name: len(rows) for name, rows in clinic.rows.items()},
        "heldout_pairs": [list(pair) for pair in sorted(clinic.split.heldout)],
        "sha256": {str(file.relative_to(folder)): _sha256(file) for file in sorted(folder.rglob("*.*"))},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return manifest


def entity_names(knowledge: Knowledge) -> list[str]:
    """Returns every name that the tokenizer keeps whole: conditions and their values, except advice."""
    names = [condition.name for condition in knowledge.conditions]
    return names + [value for attribute in ATTRIBUTES if attribute != "advice" for value in knowledge.pool(attribute)]


def _training_texts(rows: dict[str, list[Row]]) -> list[str]:
    texts = [row["text"] for row in rows["pretrain.train"]]
    texts += [message["content"] for row in rows["sft.train"] for message in row["messages"]]
    return texts + [row[side] for row in rows["preference.train"] for side in ("chosen", "rejected")]


def _find(out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest of the clinic in `out`, which must be complete and made with `options`."""
    advice = "choose another folder, or remove this one to build it again"
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{out}: is not empty and holds no clinic; {advice}") from error
    except ValueError as error:
        raise DataError(f"{out / MANIFEST}: not readable as JSON; {advice}") from error
    for key, value in options.items():
        if manifest.get(key) != value:
            raise DataError(f"{out}: holds a clinic made with {_difference(key, manifest.get(key), value)}; {advice}")
    for name, digest in manifest["sha256"].items():
        if not (out / name).is_file() or _sha256(out / name) != digest:
            raise DataError(f"{out / name}: is missing or was changed after it was built; {advice}")
    return manifest


def _difference(key: str, found: Any, wanted: Any) -> str:
    if key == "generators":
        return "another version of the generators or the knowledge base"
    if isinstance(found, dict) and isinstance(wanted, dict):
        key, found, wanted = next((k, found.get(k), v) for k, v in wanted.items() if found.get(k) != v)
    return f"{key} {found}, not {wanted}"


def _fingerprint(path: Path) -> str:
    """Returns a hash of the knowledge base and of all code that determines the content of the files."""
    here = Path(__file__).parent
    shared = [
        *sorted((here.parent / "chat").glob("*.py")),
        here.parent / "tables.py",
        here.parent / "tokenizer" / "training.py",
    ]
    sources = [*sorted(here.glob("*.py")), *shared]
    return hashlib.sha256(b"".join(file.read_bytes() for file in [path, *sources])).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
