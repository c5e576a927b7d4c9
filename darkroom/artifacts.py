"""The handles that stages exchange: kind, digest and place. Never frames, tensors or pictures."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Artifact:
    """A finished folder in the store. ``reused`` says that the store had it already; it is no part of its identity."""

    kind: ClassVar[str]
    digest: str
    path: Path
    reused: bool = field(default=False, compare=False)

    @property
    def short(self) -> str:
        """The digest as people read it."""
        return self.digest[:12]


@dataclass(frozen=True)
class Manifest(Artifact):
    """The table of pictures as the source offers them: ``manifest.parquet``."""

    kind = "manifest"


@dataclass(frozen=True)
class QualityReport(Artifact):
    """What check found: ``checked.parquet``, ``quarantine.parquet``, ``summary.json``, ``data_docs/``."""

    kind = "checked"


@dataclass(frozen=True)
class CheckedManifest(QualityReport):
    """A quality report that passed the data gate: only its accepted rows are trained on."""


@dataclass(frozen=True)
class Shards(Artifact):
    """The training-ready form: ``index.json``, ``shards/*.safetensors``, ``rows.parquet``."""

    kind = "shards"


@dataclass(frozen=True)
class Checkpoint(Artifact):
    """A trained model: ``pipeline/`` (diffusers), ``events.jsonl``, ``grids/``, ``recipe.json``."""

    kind = "checkpoint"


@dataclass(frozen=True)
class Evaluation(Artifact):
    """The measures of one checkpoint: ``metrics.json``, ``grid.png``; an autoencoder's: its reconstructions as well."""

    kind = "evaluation"


@dataclass(frozen=True)
class Samples(Artifact):
    """Pictures that a checkpoint drew, from one number up to another: ``pictures/00000.png``, ..., ``prompts.json``."""

    kind = "samples"


@dataclass(frozen=True)
class Features(Artifact):
    """What an extractor makes of samples: ``features.safetensors`` with ``features``, float64 [N, dimensions]."""

    kind = "features"


@dataclass(frozen=True)
class Verdict(Artifact):
    """Challenger against champion: ``verdict.json``."""

    kind = "verdict"


@dataclass(frozen=True)
class Reference(Artifact):
    """Real pictures and their features: ``validation/``, ``train/``, ``features.safetensors``.

    ``validation`` is [N, dimensions], ``train`` [draws, N, dimensions].
    """

    kind = "reference"
