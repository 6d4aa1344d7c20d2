"""Extends a model to an extended tokenizer: each new piece starts as the mean of the old pieces that it consists of.

python -m trainers.vocabulary --model DIR --tokenizer DIR --out DIR
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.arguments import Parser
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure
from configs.program import program
from data.tokenizer.training import load
from data.tokenizer.vocabulary import old_pieces
from trainers.runs.export import export_model, require_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROG = program("trainers.vocabulary")


def main(arguments: list[str] | None = None) -> int:
    """Extends the model; prints the vocabulary sizes and the number of new pieces as JSON, or a one-line error."""
    parser = Parser(prog=PROG, description="Extend a causal language model to an extended tokenizer.")
    parser.add_argument("--model", required=True, metavar="DIR", help="the model with its old tokenizer")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, metavar="DIR", help="tokenizer folder written by data.tokenizer extend"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the extended model")
    given = parser.parse_args(arguments)
    configure("trainers.vocabulary")
    with one_line_errors(PROG):
        if given.out.exists():
            raise ConfigError(f"--out {given.out}: already exists; give a new folder")
        folder, new = require_model(given.model, 1, "", "--model"), load(given.tokenizer)
        pieces = old_pieces(load(folder).backend_tokenizer, new.backend_tokenizer)
        if not pieces:
            raise ConfigError(
                f"--tokenizer {given.tokenizer}: has no pieces that the model's tokenizer lacks; give a "
                "tokenizer written by data.tokenizer extend"
            )
        from transformers import AutoModelForCausalLM

        from actors.model_folder.completeness import load_complete
        from actors.model_folder.generation import make_generation_config_valid

        model = load_complete(AutoModelForCausalLM.from_pretrained, folder, dtype="auto")
        before = model.get_input_embeddings().weight.shape[0]
        grow(model, pieces)
        make_generation_config_valid(model)
        export_model(given.out, new, model.save_pretrained)
        after = model.get_input_embeddings().weight.shape[0]
    print(json.dumps({"vocabulary_before": before, "vocabulary_after": after, "new_pieces": len(pieces)}))
    return 0


def grow(model: PreTrainedModel, pieces: Mapping[int, Sequence[int]]) -> None:
    """Adds rows for new ids to the model's embedding and output head, as means of old rows.

    On texts of old pieces, the logits of the old pieces do not change; only the softmax assigns some probability to
    the new ones. Hewitt 2021 ("Initializing new word embeddings for pretrained language models") explains why means
    rather than noise: with random rows, the new logits can be so large that the old pieces lose nearly all their
    probability.

    Args:
        model: the model, which is changed in place.
        pieces: for every new id, the old ids of its parts.
    """
    import torch

    size = max(model.get_input_embeddings().weight.shape[0], max(pieces) + 1)
    model.resize_token_embeddings(size, mean_resizing=False)
    tables = {id(table): table for table in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for table in tables.values():
            weight = table.weight
            for number, parts in pieces.items():
                weight[number] = weight[list(parts)].float().mean(dim=0).to(weight.dtype)


if __name__ == "__main__":
    sys.exit(main())
