"""Text encoders of pipelines that have several: CLIP with and without its projection, T5, and what stands in for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

PROJECTION = "text_projection.weight"
TOKENS_AT_ONCE = 256  # enough for a call to pay, little to throw away


def load_clip(path: Path, number: int, projection: bool) -> tuple[Any, Any]:
    """(CLIPTokenizer, CLIPTextModel or CLIPTextModelWithProjection) of a folder.

    The folder has them at its top or, as pipelines do, in ``text_encoder_<number>``. An encoder that was trained
    without a projection gets the identity: its pooled output is used as it is.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    words, weights = _folders(path, number)
    tokenizer = CLIPTokenizer.from_pretrained(words)
    if not projection:
        return tokenizer, CLIPTextModel.from_pretrained(weights, use_safetensors=True).eval()
    config: Any = CLIPTextConfig.from_pretrained(weights)
    rows = _rows_of(weights, PROJECTION)
    config.projection_dim = rows or config.hidden_size
    encoder: Any = CLIPTextModelWithProjection.from_pretrained(weights, config=config, use_safetensors=True)
    if rows is None:
        with torch.no_grad():
            encoder.text_projection.weight.copy_(torch.eye(config.hidden_size))
    return tokenizer, encoder.eval()


def load_t5(path: Path, number: int) -> tuple[Any, Any]:
    """(T5's tokenizer, T5EncoderModel) of a folder, laid out likewise."""
    from transformers import T5EncoderModel, T5TokenizerFast

    words, weights = _folders(path, number)
    encoder: Any = T5EncoderModel.from_pretrained(weights, use_safetensors=True)
    return T5TokenizerFast.from_pretrained(words), encoder.eval()


def silent_t5(width: int) -> tuple[Any, Any]:
    """A T5 of next to no weights that answers every text with zeros.

    ``StableDiffusion3Pipeline`` takes zeros where it has no T5, but saved without one it cannot be loaded again.
    """
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    config = T5Config(vocab_size=len(words), d_model=width, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    encoder: Any = T5EncoderModel(config)
    with torch.no_grad():
        for weights in encoder.parameters():
            weights.zero_()
    return T5TokenizerFast(vocab=words, extra_ids=0), encoder.eval()


def is_silent(t5: Any) -> bool:
    """Whether there is no T5, or one whose last norm lets nothing through."""
    return t5 is None or not bool(t5.encoder.final_layer_norm.weight.any())


def tokens(tokenizer: Any, texts: Sequence[str], length: int) -> torch.Tensor:
    """Token numbers, int64 [N, length]: cut off or filled up."""
    made = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    found: torch.Tensor = made.input_ids
    return found


def clip_states(
    pairs: Sequence[tuple[Any, Any]], texts: Sequence[str], length: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What several CLIP encoders say together, as Stable Diffusion XL and 3 ask them.

    Returns the last states but one, side by side, [N, length, sum of widths], and each encoder's first output: the
    projected text [N, width] where it has a projection.
    """
    states, first = [], []
    for tokenizer, encoder in pairs:
        numbers = tokens(tokenizer, texts, length).to(encoder.device)
        answer = encoder(numbers, output_hidden_states=True)
        states.append(answer.hidden_states[-2].float())
        first.append(answer[0].float())
    return torch.cat(states, dim=-1), first


def _folders(path: Path, number: int) -> tuple[Path, Path]:
    """Where the tokenizer and the weights lie."""
    for suffix in (f"_{number}" if number > 1 else "", ""):
        if (path / f"text_encoder{suffix}").is_dir():
            return path / f"tokenizer{suffix}", path / f"text_encoder{suffix}"
    return path, path


def _rows_of(folder: Path, name: str) -> int | None:
    """How many rows the tensor of this name has; None where no file of the folder has it."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as content:
            if name in content.keys():  # noqa: SIM118  # it is no mapping
                return int(content.get_slice(name).get_shape()[0])
    return None
