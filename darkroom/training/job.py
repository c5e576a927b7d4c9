"""What the trainer is told: one JSON file in its work folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from darkroom.recipe import Model, Sampler, Train
from darkroom.store import write_json

FILE = "job.json"


@dataclass(frozen=True)
class Job:
    """A training: everything that decides its result, and where its inputs lie."""

    name: str
    seed: int
    train: Train
    model: Model
    sampler: Sampler
    shards: Path
    vae: Path
    text_encoder: Path
    device: str
    reserve: int
    digests: dict[str, str]

    def write(self, work: Path) -> None:
        """Put the job where the trainer reads it."""
        plain = asdict(self) | {
            "train": self.train.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
            "sampler": self.sampler.model_dump(mode="json"),
        }
        write_json(work / FILE, {key: str(value) if isinstance(value, Path) else value for key, value in plain.items()})

    @classmethod
    def read(cls, work: Path) -> "Job":
        """The job of a work folder."""
        plain = json.loads((work / FILE).read_text("utf-8"))
        return cls(
            **plain
            | {
                "train": Train.model_validate(plain["train"]),
                "model": Model.model_validate(plain["model"]),
                "sampler": Sampler.model_validate(plain["sampler"]),
            }
            | {key: Path(plain[key]) for key in ("shards", "vae", "text_encoder")}
        )
