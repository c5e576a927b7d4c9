"""Textual inversion (Gal et al. 2022): a new word for what some pictures show; its embeddings alone are learnt.

What is left behind is an ordinary pipeline whose tokenizer and text encoder know the word, and the embeddings alone in
``learned_embeds.safetensors``, which ``load_textual_inversion`` teaches to any other model with this text encoder.
"""

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from darkroom.artifacts import Shards
from darkroom.errors import RecipeError
from darkroom.randomness import seed_of

from ..data import Side
from .base import Batch, Loss, Player
from .denoise import Denoise

FILE = "learned_embeds.safetensors"

# What a picture is captioned with whose own caption does not have the word; neutral, after Gal et al., appendix C.
TEMPLATES = (
    "a photo of {}",
    "a rendering of {}",
    "a cropped photo of {}",
    "a close-up photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a good photo of {}",
    "a photo of one {}",
)


class Extended(torch.nn.Module):
    """A frozen table of embeddings followed by new rows, the only ones that are learnt."""

    def __init__(self, known: torch.nn.Embedding, new: torch.Tensor) -> None:
        super().__init__()
        self.known = known.requires_grad_(False)
        self.new = torch.nn.Parameter(new.clone())

    @property
    def weight(self) -> torch.Tensor:
        """The whole table, [known + new, width]."""
        return torch.cat([self.known.weight, self.new])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[N, tokens] -> [N, tokens, width]."""
        first = self.known.num_embeddings
        known: torch.Tensor = self.known(ids.clamp(max=first - 1))
        new = functional.embedding((ids - first).clamp(min=0), self.new)
        return torch.where((ids >= first)[..., None], new.to(known.dtype), known)

    def whole(self) -> torch.nn.Embedding:
        """One plain table of all rows."""
        table: torch.nn.Embedding = torch.nn.Embedding.from_pretrained(self.weight.detach().clone(), freeze=True)
        return table


class Inversion(Denoise):
    """Texts are encoded in every step, by an encoder that learns one word."""

    halves = False  # transformers says nowhere that its models may be asked by two threads at once

    def condition(self, shards: Shards) -> None:
        """Teach tokenizer and encoder the word, and have it in every caption."""
        plan = self.job.train.inversion
        self.encoder: Any = self.pipeline.text_encoder
        self.words = add_words(self.pipeline.tokenizer, plan.token, plan.vectors)
        table = self.encoder.get_input_embeddings()
        self.extended = Extended(table, first_rows(table.weight, self.pipeline.tokenizer, plan.start, plan.vectors))
        self.encoder.set_input_embeddings(self.extended)
        for side in (self.data, self.validation):
            for part in side.parts:
                captions = zip(part.ids, part.texts, strict=True)
                part.texts = [with_word(text, plan.token, picture) for picture, text in captions]
            side.texts = [text for part in side.parts for text in part.texts]
        self.data.condition(self._tokens).to(self.device)
        self.validation.condition(self._encoded).to(self.device)

    def player(self) -> Player:
        """The new rows."""
        self.denoiser.requires_grad_(False).eval()
        return self.playing(self.extended, {"new": self.extended.new})

    def loss(self, player: Player, batch: Batch, step: int) -> Loss:
        """As of all denoisers, with the batch's texts encoded now."""
        ids = batch.tensors["given.ids"]
        others = {name: value for name, value in batch.tensors.items() if name != "given.ids"}
        hidden = self.encoder(ids)[0].float()
        return super().loss(player, Batch(batch.ids, {**others, "given.encoder_hidden_states": hidden}), step)

    def validation_loss(self, side: Side) -> float:
        """The mean squared error on a side, whose texts are encoded with the word as it is now."""
        return super().validation_loss(side.condition(self._encoded).to(self.device))

    def save(self, folder: Path) -> None:
        """The word alone beside the pipeline, then the pipeline with it; training cannot go on after it."""
        from safetensors.torch import save_file

        plan = self.job.train.inversion
        save_file({plan.token: self.extended.new.detach().cpu().contiguous()}, folder.parent / FILE, {"format": "pt"})
        whole = self.extended.whole()
        self.encoder.set_input_embeddings(whole)
        self.encoder.config.vocab_size = whole.num_embeddings
        super().save(folder)

    def _tokens(self, texts: Any) -> dict[str, torch.Tensor]:
        """Texts -> ``ids`` [N, tokens]."""
        tokenizer = self.pipeline.tokenizer
        words = [self.pipeline.maybe_convert_prompt(text, tokenizer) for text in texts]
        found = tokenizer(
            words, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        return {"ids": found.input_ids}

    def _encoded(self, texts: Any) -> dict[str, torch.Tensor]:
        return self.family.encode(self.pipeline, texts)


def add_words(tokenizer: Any, word: str, vectors: int) -> list[str]:
    """Add a word's tokens, named as diffusers does: the word, word_1, word_2, ...; raises for one that is known."""
    words = [word, *(f"{word}_{number}" for number in range(1, vectors))]
    if tokenizer.add_tokens(words) != len(words):
        raise RecipeError(
            f"train.inversion.token = {word!r} is in the tokenizer already: name a word that is not, such as "
            "'<my-concept>'"
        )
    return words


def first_rows(table: torch.Tensor, tokenizer: Any, start: str, vectors: int) -> torch.Tensor:
    """[vectors, width]: what the new word starts as, the embedding of a known word or the mean of all."""
    if not start:
        return table.detach().mean(dim=0, keepdim=True).repeat(vectors, 1)
    ids = tokenizer(start, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise RecipeError(
            f"train.inversion.start = {start!r} is {len(ids)} tokens, and one is needed: name a plainer word, or leave "
            "it out"
        )
    return table.detach()[ids].repeat(vectors, 1)


def with_word(text: str, word: str, picture: str) -> str:
    """A caption that has the word: the picture's own, or a neutral one, always the same for a picture."""
    if word in text:
        return text
    return TEMPLATES[seed_of("template", picture) % len(TEMPLATES)].format(word)


METHOD = Inversion
