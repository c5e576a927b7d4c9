"""What the trainer is told: one JSON file in its work folder."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from darkroom.recipe import Model, Sampler, Train
from darkroom.store import write_json

FILE = "job.json"
BASE = "base"  # among the parts: the pipeline that training starts from


@dataclass(frozen=True)
class Job:
    """A training: everything that decides its result, and where its inputs lie."""

    name: str
    seed: int
    train: Train
    model: Model
    sampler: Sampler
    shards: Path
    parts: dict[str, Path]  # folders of frozen parts, by their names in the recipe
    device: str
    reserve: int
    digests: dict[str, str]
    work: Path | None = None
    """The work folder, where a method may keep what it makes once; the trainer knows it."""

    def write(self, work: Path) -> None:
        """Put the job where the trainer reads it."""
        plain = asdict(self) | {
            name: section.model_dump(mode="json", exclude_unset=True)  # what the recipe left out stays left out
            for name, section in (("train", self.train), ("model", self.model), ("sampler", self.sampler))
        }
        parts = {name: str(path) for name, path in self.parts.items()}
        write_json(work / FILE, plain | {"shards": str(self.shards), "parts": parts, "work": None})

    @classmethod
    def read(cls, work: Path) -> "Job":
        """The job that was written into a work folder."""
        plain = json.loads((work / FILE).read_text("utf-8"))
        job = cls(
            **plain
            | {
                "train": Train.model_validate(plain["train"]),
                "model": Model.model_validate(plain["model"]),
                "sampler": Sampler.model_validate(plain["sampler"]),
            }
            | {"shards": Path(plain["shards"]), "parts": {name: Path(path) for name, path in plain["parts"].items()}}
        )
        return replace(job, work=work)
