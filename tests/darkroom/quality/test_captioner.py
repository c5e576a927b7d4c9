"""The captioning model, on tiny models of the real classes with weights drawn at random."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.quality.captioner import BATCH, captioner, find, load
from darkroom.quality.picture import working_path

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<image>"]
ASKED = ["USER", "ASSISTANT", "Describe", "this", "picture", "in", "one", "sentence."]
VOCABULARY = MARKS + ASKED + [f"word{number}" for number in range(40)]
SIDE = {"height": 32, "width": 32}
TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(padding: str = "right"):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, padding_side=padding, extra_special_tokens={"image_token": "<image>"}, **marks
    )


def sharpen(model) -> None:
    """Random weights are near zero and say the same of every picture; larger ones do not. Marks are never likely."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
            if parameter.shape == (len(VOCABULARY),):
                parameter[: len(MARKS)] = -100


def blip(folder: Path) -> None:
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    text = {"vocab_size": len(VOCABULARY), "encoder_hidden_size": 32, "projection_dim": 16}
    marks = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = {"image_size": 32, "patch_size": 8}
    config = BlipConfig(text_config=text | marks | TOWER, vision_config=vision | TOWER, projection_dim=16)
    model = BlipForConditionalGeneration(config)
    sharpen(model)
    model.save_pretrained(folder)
    reader = BertTokenizer(vocab={word: number for number, word in enumerate(VOCABULARY)})
    BlipProcessor(BlipImageProcessor(size=SIDE), reader).save_pretrained(folder)


def encoder_decoder(folder: Path) -> None:
    from transformers import (
        BertConfig,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    vision = ViTConfig(image_size=32, patch_size=8, **TOWER)
    text = BertConfig(vocab_size=len(VOCABULARY), is_decoder=True, add_cross_attention=True, **TOWER)
    model = VisionEncoderDecoderModel(config=VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text))
    sharpen(model)
    model.generation_config.update(decoder_start_token_id=2, pad_token_id=0, eos_token_id=3)
    model.save_pretrained(folder)
    ViTImageProcessor(size=SIDE).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def talked_to(folder: Path) -> None:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    text = LlamaConfig(vocab_size=len(VOCABULARY), **TOWER)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **TOWER)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=MARKS.index("<image>"), vision_feature_layer=-1
    )
    model = LlavaForConditionalGeneration(config)
    sharpen(model)
    model.generation_config.update(pad_token_id=0, eos_token_id=3)
    model.save_pretrained(folder)
    template = (
        "{% for message in messages %}USER {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
        "{% endfor %}{% endfor %}ASSISTANT"
    )
    LlavaProcessor(
        CLIPImageProcessor(size=SIDE, crop_size=SIDE),
        tokenizer("left"),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=[blip, encoder_decoder, talked_to], ids=lambda make: make.__name__)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("model")
    request.param(made)
    return made


@pytest.fixture
def working(tmp_path: Path) -> dict[str, str]:
    """Working copies of a batch and a bit, and the key of one that is not there."""
    keys = {f"id{seed}": hashlib.sha256(bytes([seed])).hexdigest() for seed in range(BATCH + 3)}
    for seed, key in enumerate(keys.values()):
        path = working_path(tmp_path, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(path, format="PNG")
    return keys | {"gone": "0" * 64}


def test_each_picture_is_captioned_from_its_pixels_whatever_stands_beside_it(folder, working, tmp_path) -> None:
    found = captioner(str(folder), tmp_path, working, threads=1)(["id3", "id9", "gone", "unknown", *working])
    assert found.keys() == working.keys() - {"gone"}
    write = load(find(str(folder)), threads=1)
    alone = {f"id{seed}": write([picture(seed)])[0] for seed in (0, 9)}
    assert {name: found[name] for name in alone} == alone
    assert len(set(found.values())) > 1
    assert all("[" not in text and "USER" not in text.split()[:1] for text in found.values())


def test_what_was_written_is_not_written_again(folder, working, tmp_path) -> None:
    told: list[tuple[int, int]] = []
    first = captioner(str(folder), tmp_path, working, threads=1, progress=lambda *now: told.append(now))(["id0", "id1"])
    assert told[-1] == (2, 2)
    told.clear()
    again = captioner(str(folder), tmp_path, working, threads=1, progress=lambda *now: told.append(now))
    assert again(["id1", "id0"]) == first
    assert told == []
    assert again(["id0", "id2"]).keys() == {"id0", "id2"}
    assert told == [(1, 1)]


@pytest.mark.parametrize("name", ["no/such/model", "builtin:nothing", "builtin:digits-text-encoder"])
def test_a_model_that_is_none_says_how_to_supply_one(name: str) -> None:
    with pytest.raises(RecipeError, match=r"check\.captioner.*(folder|name) "):
        load(find(name))


def test_weights_that_would_be_unpickled_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RecipeError, match="safetensors"):
        find(str(tmp_path))
