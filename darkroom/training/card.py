"""The model card that lies beside the weights."""

from pathlib import Path

from darkroom.diffusion.families import Family
from darkroom.recipe_training import PARTS

from .job import BASE, Job

WORDS = {
    "flow": "flow matching",
    "epsilon": "predicting the noise",
    "v": "predicting v",
    "x0": "predicting the picture",
}
TAGS = {
    "caption": "pipeline_tag: text-to-image\n",
    "label": "",  # hubs have no word for it
    "nothing": "pipeline_tag: unconditional-image-generation\n",
}


def model_card(job: Job, family: Family, kind: str, pictures: int, size: int, label: str | None = None) -> str:
    """Markdown with the front matter that model hubs read.

    ``size``: side of what it draws, in pixels; ``label``: one that it knows, where it is asked by labels.
    """
    tag = TAGS[family.asked_by]
    call = family.call(
        label or next(iter(job.train.prompts), "a prompt"), size, job.sampler.steps, job.sampler.guidance
    )
    parts = [f"`{_shown(getattr(job.model, name))}`" for name in PARTS if name in job.parts]
    frozen = f" Parts that were taken as they are: {', '.join(parts)}." if parts else ""
    return f"""---
library_name: diffusers
{tag}tags: [darkroom]
---

# {job.name}

A `{family.pipeline}`. {_trained(job, family)} by {WORDS[kind]}
on {pictures:,} pictures for {job.train.steps:,} steps of {job.train.batch}.{frozen}

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("this folder")
picture = pipeline({call}).images[0]
```

Made by darkroom; seed {job.seed}, data `{job.digests["shards"][:12]}`.
"""


def _shown(name: str) -> str:
    """A name as others may read it: of a folder on this machine the last part."""
    return Path(name).name if Path(name).is_absolute() else name


def _trained(job: Job, family: Family) -> str:
    """What was trained, and from where."""
    if BASE not in job.parts:
        return f"{family.describe()[:1].upper() + family.describe()[1:]} was trained from scratch"
    base, token = f"`{_shown(str(job.model.base))}`", job.train.inversion.token
    said = {
        "lora": f"Adapters of {base} (rank {job.train.lora.rank}, fused in here, alone in `lora/`) were trained",
        "textual-inversion": f"To {base} the word `{token}` was taught (alone in `learned_embeds.safetensors`)",
    }
    whole = f"{family.describe()[:1].upper() + family.describe()[1:]}, of {base}, was trained further"
    return said.get(job.train.method, whole)
