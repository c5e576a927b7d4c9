"""Embeddings: those of the text encoder, each made once."""

from pathlib import Path

import pytest
import torch

from darkroom.artifacts import Shards
from darkroom.diffusion.pipeline import embed, load_text
from darkroom.preprocess import texts
from darkroom.preprocess.texts import TextEncoder, encode_texts
from darkroom.weights.locate import locate

FOLDER = locate("builtin:digits-text-encoder").path
CAPTIONS = ["", "a handwritten one", "手寫數字七", "seven", "a handwritten two, large"]


@pytest.fixture(scope="module")
def parts():
    return load_text(FOLDER)


def test_they_are_the_text_encoders_own_and_depend_on_the_caption_alone(parts) -> None:
    found = encode_texts(CAPTIONS, *parts)
    torch.testing.assert_close(found, embed(CAPTIONS, *parts))
    assert torch.equal(encode_texts(CAPTIONS[::-1], *parts).flip(0), found)
    assert torch.equal(encode_texts(CAPTIONS * 30, *parts)[-len(CAPTIONS) :], found)
    assert not found.is_inference()


def test_only_new_captions_are_encoded(parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(captions, tokenizer, model) -> torch.Tensor:
        asked.extend(captions)
        return encode_texts(captions, tokenizer, model)

    monkeypatch.setattr(texts, "encode_texts", counted)
    shards = Shards("d", tmp_path / "shards/d")
    embedder = TextEncoder.cached(*parts, FOLDER, shards)
    assert torch.equal(embedder(CAPTIONS[:3]), encode_texts(CAPTIONS[:3], *parts))
    assert asked == CAPTIONS[:3]
    order = [CAPTIONS[4], CAPTIONS[1], CAPTIONS[3], CAPTIONS[0], CAPTIONS[1]]
    assert torch.equal(embedder(order), encode_texts(order, *parts))
    assert asked == [*CAPTIONS[:3], CAPTIONS[4], CAPTIONS[3]]
    other = TextEncoder(*parts, "other weights", tmp_path)
    other(CAPTIONS[:1])
    assert asked[-1] == CAPTIONS[0]


def test_shards_outside_a_store_leave_nothing_there(parts, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    embedder = TextEncoder.cached(*parts, FOLDER, Shards("d", tmp_path / "elsewhere/d"))
    assert torch.equal(embedder(CAPTIONS), encode_texts(CAPTIONS, *parts))
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
