"""The tokenizer that the shipped encoders read with, and the captions that they learn from.

Byte-pair encoding: R. Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016, algorithm 1;
over bytes, as in A. Radford et al., Language Models are Unsupervised Multitask Learners, 2019, section 2.2.
"""

import random
from collections import Counter
from itertools import chain, pairwise

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from darkroom.collect.digits import CHINESE, WORDINGS, WORDS, caption

TOKENS = 32  # of every caption, the start, the end and the padding included
MERGES = 84  # with 2 x 256 bytes and 2 marks, a vocabulary of 598
BEGIN, END = "<|startoftext|>", "<|endoftext|>"

# Wordings that no encoder is trained on, to measure them with.
HELD_OUT = (
    "a photo of a {word}",
    "A PHOTO OF A {word}!",
    "the number {word}",
    "please draw a {word}, in white ink",
    "{digit}",
    "it says {digit}",
    "a picture of the digit {digit} on black paper",
    "Handwritten {word}",
    "my favourite {word} 🙂",
    "a small {word} from a letter",
    "数字{chinese}",
    "請畫{chinese}給我看",
    "黑底白字的{chinese}",
)


def known_captions() -> list[list[str]]:
    """For each digit its caption in every wording."""
    return [[caption(digit, wording) for wording in range(len(WORDINGS))] for digit in range(10)]


def held_out_captions() -> list[list[str]]:
    """For each digit its caption in every wording of :data:`HELD_OUT`."""
    names = zip(WORDS, range(10), CHINESE, strict=True)
    return [[text.format(word=word, digit=digit, chinese=sign) for text in HELD_OUT] for word, digit, sign in names]


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that reads any text, and the known captions in few tokens."""
    # The bytes' printable stand-ins, as byte-level encodings spell them; a word's last byte is marked by "</w>".
    alphabet = sorted(_bytes_to_unicode().values())
    symbols = alphabet + [symbol + "</w>" for symbol in alphabet]
    merges = learn_merges(_words(_tokenizer(symbols, [])), MERGES)
    return _tokenizer(symbols + ["".join(pair) for pair in merges], merges)


def _tokenizer(symbols: list[str], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    # The marks come last: transformers gives an end mark with the identifier 2 another, historical meaning.
    vocabulary = {symbol: index for index, symbol in enumerate([*symbols, BEGIN, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def _bytes_to_unicode() -> dict[int, str]:
    """The 256 bytes as printable characters: GPT-2's table."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + rank) for rank, byte in enumerate(others)}


def _words(plain: CLIPTokenizer) -> Counter[tuple[str, ...]]:
    """The words of the known captions as the tokenizer splits them, each a tuple of symbols, and how often they come.

    Chinese is split at every character, so that a sign keeps its tokens whatever stands before it.
    """
    splitter, spelling = plain.backend_tokenizer.pre_tokenizer, _bytes_to_unicode()
    words: Counter[tuple[str, ...]] = Counter()
    for text in chain.from_iterable(known_captions()):
        for _, (start, end) in splitter.pre_tokenize_str(text):
            parts = [text[start:end]] if text.isascii() else list(text[start:end])
            spelled = [[spelling[byte] for byte in part.encode()] for part in parts]
            spelled[-1][-1] += "</w>"
            words.update(tuple(part) for part in spelled)
    return words


def learn_merges(words: Counter[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """The ``count`` merges that byte-pair encoding finds; of equally frequent pairs the first in the alphabet."""
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, times in words.items():
            merged[_merge(word, best)] += times
        words = merged
    return merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """``word`` with every occurrence of ``pair`` joined, from the left."""
    joined: list[str] = []
    index = 0
    while index < len(word):
        width = 2 if word[index : index + 2] == pair else 1
        joined.append("".join(word[index : index + width]))
        index += width
    return tuple(joined)


def encode(reader: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Texts -> int64 [N, 32], cut or padded as StableDiffusionPipeline does it."""
    tokens = reader(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    return torch.as_tensor(tokens.input_ids)


def varied_captions(reader: CLIPTokenizer, count: int, seed: int) -> Tensor:
    """For each digit ``count`` captions, half of them as written, half among unknown words; int64 [10, count, 32]."""
    rng = random.Random(seed)
    rows = []
    for known in known_captions():
        texts = [rng.choice(known) for _ in range(count // 2)]
        while len(texts) < count:
            text = _among_unknown_words(rng.choice(known), rng)
            if len(reader.backend_tokenizer.encode(text).ids) <= TOKENS:  # else the digit itself might be cut off
                texts.append(text)
        rows.append(encode(reader, texts))
    return torch.stack(rows)


def _among_unknown_words(text: str, rng: random.Random) -> str:
    """``text`` with words left out, and with unknown words and punctuation put in; what names the digit stays."""
    words = []
    for word in text.split():
        names_a_digit = word in WORDS or word.isdigit()
        if word[-1] in CHINESE:  # one word to the tokenizer, as Chinese has no spaces
            word = _chinese(rng, 3) + rng.choice([word, word[-1]]) + _chinese(rng, 3)
        elif not names_a_digit and rng.random() < 0.3:
            continue
        words.append(word)
    for _ in range(rng.randrange(4)):
        letters = rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 7))
        words.insert(rng.randint(0, len(words)), "".join(letters))
    if rng.random() < 0.4:
        words[rng.randrange(len(words))] += rng.choice(".,:;!?🙂")
    return " ".join(words)


def _chinese(rng: random.Random, most: int) -> str:
    """Up to ``most`` Chinese characters at random, none of them a digit."""
    characters = [chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(0, most))]
    return "".join(character for character in characters if character not in CHINESE)
