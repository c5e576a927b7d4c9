"""The model card that lies beside the weights."""

from darkroom.diffusion.families import Family

from .job import Job

WORDS = {
    "flow": "flow matching",
    "epsilon": "predicting the noise",
    "v": "predicting v",
    "x0": "predicting the picture",
}


def model_card(job: Job, family: Family, kind: str, pictures: int) -> str:
    """Markdown with the front matter that model hubs read."""
    asked = family.asked_by == "caption"
    tag = "text-to-image" if asked else "unconditional-image-generation"
    prompt = f"{next(iter(job.train.prompts), 'a prompt')!r}, " if asked else ""
    guidance = f", guidance_scale={job.sampler.guidance}" if asked else ""
    parts = [f"`{getattr(job.model, name)}`" for name in job.parts]
    frozen = f" Parts that were taken as they are: {', '.join(parts)}." if parts else ""
    return f"""---
library_name: diffusers
pipeline_tag: {tag}
tags: [darkroom]
---

# {job.name}

A `{family.pipeline}`. {family.describe()[:1].upper() + family.describe()[1:]} was trained from scratch by {WORDS[kind]}
on {pictures:,} pictures for {job.train.steps:,} steps of {job.train.batch}.{frozen}

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("this folder")
picture = pipeline({prompt}num_inference_steps={job.sampler.steps}{guidance}).images[0]
```

Made by darkroom; seed {job.seed}, data `{job.digests["shards"][:12]}`.
"""
