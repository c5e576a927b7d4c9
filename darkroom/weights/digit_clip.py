"""Small CLIP models of the digits: an encoder of pictures and one of captions that agree.

A. Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, with the targets of
J. Yang et al., Unified Contrastive Learning in Image-Text-Label Space, 2022, equations 3 to 5: as the captions of a
digit mean the same, every picture of it is right for each of them.
"""

import math
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .digit_captions import BEGIN, END, TOKENS, encode, known_captions, varied_captions
from .digit_pictures import PIXELS, Pictures, draw
from .progress import counted

WIDTH, PROJECTION = 64, 64
WORDINGS_A_DIGIT = 6  # captions of each digit in a batch
BATCH, RATE, WARM_UP, WEIGHT_DECAY = 128, 2e-3, 50, 0.05
HIGHEST_SCALE = 30.0  # of the cosines; the paper allows 100, which these few pictures overfit


def build(reader: CLIPTokenizer) -> CLIPModel:
    """A CLIP model of 16-pixel pictures and 32-token captions, its weights drawn from torch's global generator."""
    tower = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    text = {
        "vocab_size": len(reader),
        "max_position_embeddings": TOKENS,
        "num_hidden_layers": 2,
        "bos_token_id": reader.convert_tokens_to_ids(BEGIN),
        "eos_token_id": reader.convert_tokens_to_ids(END),
        "pad_token_id": reader.convert_tokens_to_ids(END),
    }
    vision = {"image_size": PIXELS, "patch_size": 4, "num_hidden_layers": 3}
    return CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=PROJECTION))


def train(pictures: Pictures, reader: CLIPTokenizer, steps: int, seed: int) -> CLIPModel:
    """A CLIP model trained on ``pictures`` and on varied captions of their digits."""
    torch.manual_seed(seed)
    model = build(reader).train()
    # The pooled features must also tell how a digit was written, not only which: else a Fréchet distance between them
    # would not see that all generated sevens look alike. So a linear map must find the pixels in them again.
    readout = nn.Linear(WIDTH, PIXELS * PIXELS)
    parameters = [*model.parameters(), *readout.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    captions = varied_captions(reader, 2000, seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in counted(f"clip, seed {seed}", steps):
        batch = draw(pictures, BATCH, generator)
        chosen = torch.randint(captions.shape[1], (10, WORDINGS_A_DIGIT), generator=generator)
        texts = captions[torch.arange(10)[:, None], chosen].flatten(0, 1)  # [T, tokens], T = 10 digits x 6
        seen = model.vision_model(pixel_values=_noisy(batch.images, generator)).pooler_output  # [B, width]
        read = model.text_model(input_ids=texts).pooler_output
        cosines = unit(model.visual_projection(seen)) @ unit(model.text_projection(read)).T  # [B, T]
        contrast = contrastive_loss(cosines * model.logit_scale.exp(), batch.digits)
        pixels = functional.mse_loss(readout(seen), batch.images[:, 0].flatten(1))
        loss = contrast + 3 * pixels
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(HIGHEST_SCALE))
    return model.eval()


def warm_cosine(step: int, steps: int) -> float:
    """The share of the rate at a step: linear warm-up, then half a cosine down to 0."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 0.1 * torch.randn(images.shape, generator=generator)


def unit(vectors: Tensor) -> Tensor:
    """Each row of [N, D] brought to length 1."""
    return functional.normalize(vectors, dim=-1)


def contrastive_loss(logits: Tensor, digits: Tensor) -> Tensor:
    """The bidirectional loss of pictures [B] and captions [T] of the ten digits in turn; equation 3 of UniCL."""
    same = (digits[:, None] == torch.arange(10).repeat_interleave(WORDINGS_A_DIGIT)).float()  # [B, T]
    from_pictures = functional.cross_entropy(logits, same / same.sum(dim=1, keepdim=True))
    # A digit without a picture in this batch has no right answer, and adds nothing.
    from_captions = functional.cross_entropy(logits.T, (same / same.sum(dim=0).clamp(min=1)).T)
    return from_pictures + from_captions


@torch.no_grad()
def digit_embeddings(model: CLIPModel, reader: CLIPTokenizer) -> Tensor:
    """The mean direction of each digit's known captions; unit vectors [10, projection]."""
    texts = [model.get_text_features(encode(reader, known)).pooler_output for known in known_captions()]
    return unit(torch.stack([unit(text).mean(dim=0) for text in texts]))


@torch.no_grad()
def accuracy_on_pictures(model: CLIPModel, reader: CLIPTokenizer, pictures: Pictures) -> float:
    """The share of pictures whose digit's captions are nearest: zero-shot classification."""
    seen = unit(model.get_image_features(pictures.images).pooler_output)
    return _share_right(seen @ digit_embeddings(model, reader).T, pictures.digits)


@torch.no_grad()
def accuracy_on_captions(model: CLIPModel, reader: CLIPTokenizer, captions: list[list[str]]) -> float:
    """The share of ``captions`` (a list for each digit) that are nearest to their digit's known captions."""
    read = unit(model.get_text_features(encode(reader, list(chain.from_iterable(captions)))).pooler_output)
    digits = torch.tensor([digit for digit, texts in enumerate(captions) for _ in texts])
    return _share_right(read @ digit_embeddings(model, reader).T, digits)


def _share_right(cosines: Tensor, digits: Tensor) -> float:
    return (cosines.argmax(dim=1) == digits).float().mean().item()
