"""The stages' versions, which enter their digests, and the guard that reminds whoever changes one.

``python -m darkroom.stages`` fails when the source of a stage changed and neither its VERSION nor its record did.
After a change that can alter results: raise the version here. Then, or after a change that cannot:
``python -m darkroom.stages --record``.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .store import digest_of

RECORD = Path(__file__).with_name("stages.json")


@dataclass(frozen=True)
class Stage:
    """A stage's version and the files that decide what it makes."""

    version: int
    sources: tuple[str, ...]


SHARED = ("randomness.py", "devices.py")
ENCODED_BY = ("shards", "latents", "pictures", "rowcache", "tensorfile", "texts")
ENCODING = tuple(f"preprocess/{name}.py" for name in ENCODED_BY)
COMPARED_BY = ("verdict", "gate", "sequential", "contrasts", "frechet", "sets", "measures", "samples")
TRAINING = ("training/*.py", "training/methods/*.py", "diffusion/*.py", "diffusion/families/*.py")
# Where training goes by distances.
JUDGED_BY = tuple(f"evaluation/{name}.py" for name in ("evaluate", "features", "frechet", "samples", "sets"))
STAGES = {
    "manifest": Stage(2, ("collect/*.py",)),
    "checked": Stage(4, ("quality/*.py",)),
    "shards": Stage(2, ("preprocess/*.py", *SHARED)),
    "checkpoint": Stage(8, (*TRAINING, *JUDGED_BY, "preprocess/texts.py", *SHARED)),
    "evaluation": Stage(
        5, ("evaluation/*.py", "diffusion/*.py", "diffusion/families/*.py", "training/data.py", *ENCODING, *SHARED)
    ),
    "reference": Stage(2, ("evaluation/features.py", "evaluation/evaluate.py")),
    "samples": Stage(1, ("evaluation/samples.py", "diffusion/*.py", "diffusion/families/*.py", *SHARED)),
    "features": Stage(1, ("evaluation/features.py", *SHARED)),
    "verdict": Stage(3, tuple(f"evaluation/{name}.py" for name in COMPARED_BY)),
}


def stage_digest(kind: str, fields: dict[str, Any], inputs: dict[str, Any], seed: int | None = None) -> str:
    """The digest of a stage's output: of its kind, version, seed, the fields that can change it, and its inputs."""
    return digest_of({"kind": kind, "version": STAGES[kind].version, "seed": seed, "fields": fields, "inputs": inputs})


def source_hashes() -> dict[str, dict[str, Any]]:
    """Version and hash of the sources of every stage."""
    root = Path(__file__).parent
    found = {}
    for kind, stage in STAGES.items():
        total = hashlib.sha256()
        for path in sorted(path for pattern in stage.sources for path in root.glob(pattern)):
            total.update(path.name.encode() + b"\0" + path.read_bytes())
        found[kind] = {"version": stage.version, "sources": total.hexdigest()}
    return found


def main(arguments: list[str]) -> int:
    """Check the record, or write it with ``--record``."""
    now = source_hashes()
    if arguments == ["--record"]:
        RECORD.write_text(json.dumps(now, indent=2) + "\n")
        return 0
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    stale = [kind for kind in now if now[kind] != recorded.get(kind)]
    for kind in stale:
        print(
            f"the source of stage {kind!r} changed: raise its version in darkroom/stages.py if results can change, "
            "then run `python -m darkroom.stages --record`",
            file=sys.stderr,
        )
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
