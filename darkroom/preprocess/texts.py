"""What a model is given beside the picture (embeddings of captions, classes), each made once for the same encoders.

As with latents, encoders are always called with the same number of texts: what is made of a text depends on it alone,
and not on which others were new.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import Shards
from darkroom.store import digest_of

from .rowcache import Place, RowCache

if TYPE_CHECKING:
    import torch

# Raised when what is made of the same text under the same weights changes.
TEXTS = 2
FEWEST_WORDS = 8  # of a vocabulary that reads texts
CACHE = "textcache"
AT_ONCE = 512  # texts encoded and then kept; a kill loses no more

Encode = Callable[[Sequence[str]], "dict[str, torch.Tensor]"]


@dataclass(frozen=True)
class Texts:
    """Texts to conditions; with a ``root``, they are kept there under the digest ``weights`` of the encoders."""

    encode: Encode
    weights: str = ""
    root: Path | None = None

    @classmethod
    def cached(cls, encode: Encode, encoders: Sequence[Any], shards: Shards) -> "Texts":
        """One that keeps them in the store which has the shards; ``encoders``: see :meth:`Family.encoders`."""
        root = shards.path.parents[1] if shards.path.parent.name == Shards.kind else None  # else they lie in no store
        return cls(encode, encoders_digest(encoders), root) if root and encoders else cls(encode)

    def __call__(self, texts: Sequence[str]) -> "dict[str, torch.Tensor]":
        """Texts -> tensors [N, ...] by name, on the CPU."""
        import torch

        if self.root is None:
            return self.encode(texts)
        context = [TEXTS, self.weights, torch.get_num_threads()]
        keys = {text: digest_of([*context, text]) for text in texts}
        with RowCache(self.root, CACHE) as cache:
            places: dict[str, Place] = cache.find(keys.values())
            new = [text for text, key in keys.items() if key not in places]
            for start in range(0, len(new), AT_ONCE):
                part = new[start : start + AT_ONCE]
                made = {name: rows.numpy() for name, rows in self.encode(part).items()}
                places |= cache.add([keys[text] for text in part], made)
            wanted = [keys[text] for text in texts]
            names = cache.tensors(places[wanted[0]].file)
            return {name: torch.from_numpy(cache.read(wanted, places, name)) for name in names}


def cut_words(tokenizers: Sequence[Any], text: str) -> str:
    """The end of a text that none of these tokenizers has room for; empty where one reads it all.

    One without a vocabulary, which stands in for a T5 that is not there, reads nothing.
    """
    cut = []
    for tokenizer in tokenizers:
        if len(tokenizer) <= FEWEST_WORDS:
            continue
        read = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        most = int(tokenizer.model_max_length)
        # The last place is the end mark's: what begins at that token's place is not read.
        cut.append(text[read[most - 1][0] :].strip() if len(read) > most else "")
    return min(cut, key=len, default="")


def encoders_digest(encoders: Sequence[Any]) -> str:
    """sha256 over the weights of models, the vocabularies of tokenizers, wherever they were loaded from, and texts."""
    total = hashlib.sha256()
    for encoder in encoders:
        if isinstance(encoder, str):
            total.update(f"\0{encoder}\0".encode())
        elif hasattr(encoder, "state_dict"):
            total.update(f"{encoder.device.type} {encoder.dtype}".encode())
            for name, value in sorted(encoder.state_dict().items()):
                total.update(f"\0{name} {tuple(value.shape)}".encode())
                total.update(value.detach().cpu().contiguous().flatten().view(_bytes()).numpy().data)
        else:
            total.update(f"{encoder.backend_tokenizer.to_str()} {encoder.model_max_length}".encode())
    return total.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8  # numpy has no bfloat16
