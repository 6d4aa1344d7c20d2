"""Generation settings that come with a checkpoint, made valid before they are saved again."""

from __future__ import annotations

from transformers import GenerationConfig, PreTrainedModel


def make_generation_config_valid(model: PreTrainedModel) -> None:
    """Change the model's generation settings so that Transformers saves them.

    Transformers loads a generation_config.json that sets sampling parameters without `do_sample`, as those of many LLaMA
    checkpoints do, and refuses to save it. Sampling is what such a file means, so `do_sample` is set. Settings that are
    still not valid are replaced by the token ids alone. Both are printed.
    """
    if not model.can_generate():
        return
    settings = model.generation_config
    if settings is None or (fault := _fault(settings)) is None:
        return
    if not settings.do_sample:
        settings.do_sample = True
        if _fault(settings) is None:
            print(
                "export: generation_config.json has sampling parameters but no do_sample; it is set to true", flush=True
            )
            return
    print(f"export: generation_config.json keeps token ids only, since it is not valid: {fault}", flush=True)
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(settings, name) for name in ids})


def _fault(settings: GenerationConfig) -> str | None:
    """Return why Transformers would refuse to save the settings, in one line; None if it would not."""
    try:
        settings.validate(strict=True)
    except ValueError as error:
        return " ".join(str(error).split())[:200]
    return None
