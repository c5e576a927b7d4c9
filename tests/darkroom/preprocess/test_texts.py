"""What a model is given for texts: made by its own encoders, each text once."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darkroom.artifacts import Shards
from darkroom.diffusion.families import family
from darkroom.diffusion.pipeline import load_text
from darkroom.preprocess.texts import Texts, encoders_digest
from darkroom.weights.locate import locate

FOLDER = locate("builtin:digits-text-encoder").path
CAPTIONS = ["", "a handwritten one", "手寫數字七", "seven", "a handwritten two, large"]
NAME = "encoder_hidden_states"


@pytest.fixture(scope="module")
def parts():
    tokenizer, encoder = load_text(FOLDER)
    return SimpleNamespace(tokenizer=tokenizer, text_encoder=encoder, maybe_convert_prompt=lambda text, _: text)


def encode(parts, captions) -> torch.Tensor:
    return family("stable-diffusion").encode(parts, captions)[NAME]


def test_they_are_the_text_encoders_own_and_depend_on_the_caption_alone(parts) -> None:
    found = encode(parts, CAPTIONS)
    tokens = parts.tokenizer(
        CAPTIONS, padding="max_length", max_length=parts.tokenizer.model_max_length, return_tensors="pt"
    )
    torch.testing.assert_close(found, parts.text_encoder(tokens.input_ids)[0].detach())
    assert torch.equal(encode(parts, CAPTIONS[::-1]).flip(0), found)
    assert torch.equal(encode(parts, CAPTIONS * 30)[-len(CAPTIONS) :], found)
    assert not found.is_inference()


def test_only_new_captions_are_encoded(parts, tmp_path: Path) -> None:
    asked: list[str] = []

    def counted(captions) -> dict[str, torch.Tensor]:
        asked.extend(captions)
        return family("stable-diffusion").encode(parts, captions)

    shards = Shards("d", tmp_path / "shards/d")
    texts = Texts.cached(counted, [parts.tokenizer, parts.text_encoder], shards)
    assert torch.equal(texts(CAPTIONS[:3])[NAME], encode(parts, CAPTIONS[:3]))
    assert asked == CAPTIONS[:3]
    order = [CAPTIONS[4], CAPTIONS[1], CAPTIONS[3], CAPTIONS[0], CAPTIONS[1]]
    assert torch.equal(texts(order)[NAME], encode(parts, order))
    assert asked == [*CAPTIONS[:3], CAPTIONS[4], CAPTIONS[3]]
    other = Texts(counted, "other weights", tmp_path)
    other(CAPTIONS[:1])
    assert asked[-1] == CAPTIONS[0]


def test_the_encoders_digest_follows_weights_and_vocabulary(parts) -> None:
    before = encoders_digest([parts.tokenizer, parts.text_encoder])
    again = load_text(FOLDER)
    assert encoders_digest(again) == before
    with torch.no_grad():
        next(again[1].parameters()).flatten()[0] += 1
    assert encoders_digest(again) != before
    again[0].add_tokens("<new>")
    assert encoders_digest([again[0]]) != encoders_digest([parts.tokenizer])


def test_shards_outside_a_store_leave_nothing_there(parts, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shards = Shards("d", tmp_path / "elsewhere/d")
    texts = Texts.cached(lambda some: family("stable-diffusion").encode(parts, some), [parts.text_encoder], shards)
    assert torch.equal(texts(CAPTIONS)[NAME], encode(parts, CAPTIONS))
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
