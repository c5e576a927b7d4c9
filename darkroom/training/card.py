"""The model card that lies beside the weights."""

from .job import Job


def model_card(job: Job, pictures: int) -> str:
    """Markdown with the front matter that model hubs read."""
    prompt = next(iter(job.train.prompts), "a handwritten seven")
    return f"""---
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion, flow-matching, darkroom]
---

# {job.name}

A text-to-image latent diffusion model: an `AutoencoderKL`, a CLIP text encoder and a `UNet2DConditionModel`. The
denoiser was trained from scratch by flow matching on {pictures:,} captioned pictures for {job.train.steps:,} steps of
{job.train.batch}; the other two parts were taken as they are (`{job.model.vae}`, `{job.model.text_encoder}`).

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("this folder")
picture = pipeline({prompt!r}, num_inference_steps=20, guidance_scale=1.0).images[0]
```

Made by darkroom; seed {job.seed}, data `{job.digests["shards"][:12]}`.
"""
