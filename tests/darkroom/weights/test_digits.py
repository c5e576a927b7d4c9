"""The shipped encoders: many wordings reach their digit, any text is read, and the judge is not the text encoder."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from darkroom.collect import digits
from darkroom.collect.digits import WORDINGS, caption
from darkroom.diffusion.families import family
from darkroom.diffusion.pipeline import load_text
from darkroom.evaluation.features import load
from darkroom.quality.split import side
from darkroom.weights.locate import locate

JUDGE, READER = locate("builtin:clip-digits").path, locate("builtin:digits-text-encoder").path


@torch.inference_mode()
def pooled(texts: list[str]) -> np.ndarray:
    tokenizer, encoder = load_text(READER)
    tokens = tokenizer(
        texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    found = encoder(tokens.input_ids).pooler_output.numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("text", "digit"),
    [
        ("a handwritten seven", 7),
        ("A HANDWRITTEN SEVEN!", 7),
        ("手寫數字七", 7),
        ("手写数字七", 7),
        ("七", 7),
        ("7", 7),
        ("a photo of a zero on blue paper", 0),
        ("the number three, please", 3),
    ],
)
def test_many_wordings_reach_their_digit(text: str, digit: int) -> None:
    anchors = pooled([caption(number, 0) for number in range(10)])
    assert int((anchors @ pooled([text])[0]).argmax()) == digit


@pytest.mark.parametrize("text", ["", "zebra 🦓", "\x00\x07", "مرحبا", "x" * 5000, "你好" * 500])
def test_any_text_is_read(text: str) -> None:
    tokenizer, encoder = load_text(READER)
    parts = SimpleNamespace(tokenizer=tokenizer, text_encoder=encoder, maybe_convert_prompt=lambda text, _: text)
    found = family("stable-diffusion").encode(parts, [text])["encoder_hidden_states"]
    assert found.shape == (1, 32, encoder.config.hidden_size)
    assert torch.isfinite(found).all()


def test_the_judge_knows_held_out_digits() -> None:
    model, tokenizer = CLIPModel.from_pretrained(JUDGE).eval(), CLIPTokenizer.from_pretrained(JUDGE)
    held_out = [item for item in digits.items() if side(str(item.fingerprint), 0, 0.2) == "validation"]
    extractor = load("builtin:clip-digits", "cpu")
    import io

    from PIL import Image

    pictures = [
        np.asarray(Image.open(io.BytesIO(item.read())).convert("RGB").resize((16, 16), Image.Resampling.BICUBIC))
        for item in held_out
    ]
    with torch.inference_mode():
        seen = extractor.network(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float())
        tokens = tokenizer([caption(number, 0) for number in range(10)], padding=True, return_tensors="pt")
        texts = model.text_projection(model.text_model(**tokens).pooler_output)
        cosines = torch.nn.functional.normalize(seen, dim=-1) @ torch.nn.functional.normalize(texts, dim=-1).T
    right = [
        digits.WORDS[index] == item.label for index, item in zip(cosines.argmax(1).tolist(), held_out, strict=True)
    ]
    assert np.mean(right) >= 0.97


def test_nothing_scores_itself() -> None:
    reader, judge = CLIPTextModel.from_pretrained(READER), CLIPModel.from_pretrained(JUDGE).text_model
    ours, theirs = dict(reader.named_parameters()), dict(judge.named_parameters())
    shared = [
        name for name in ours if name in theirs and ours[name].shape == theirs[name].shape and ours[name].ndim > 1
    ]
    assert shared
    assert not any(torch.equal(ours[name], theirs[name]) for name in shared)


def test_all_wordings_are_short_enough() -> None:
    tokenizer, _ = load_text(READER)
    lengths = [len(tokenizer(caption(digit, index)).input_ids) for digit in range(10) for index in range(len(WORDINGS))]
    assert max(lengths) < tokenizer.model_max_length
