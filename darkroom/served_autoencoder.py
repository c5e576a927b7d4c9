"""An autoencoder as MLflow serves it: PNG pictures in, their reconstructions out.

This file is logged beside the weights (MLflow's "models from code") and runs where nothing of darkroom is installed, so
it imports mlflow, diffusers, torch, numpy, Pillow, pandas and the standard library alone.

What it is asked with: a table with the column ``image``, pictures in base64. What it answers: the same column, each
picture in the nearest size that the autoencoder takes, as it comes out of its latents, a PNG in base64.
"""

import base64
import io
import os
from typing import Any

import mlflow
import numpy
import pandas
from mlflow.pyfunc import PythonModel, PythonModelContext


class Rebuilder(PythonModel):  # type: ignore[misc]  # mypy does not look into mlflow
    """A diffusers ``AutoencoderKL`` behind MLflow's ``predict``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the autoencoder, on the CPU or the device that ``DARKROOM_DEVICE`` names."""
        from diffusers import AutoencoderKL

        vae: Any = AutoencoderKL.from_pretrained(context.artifacts["pipeline"], use_safetensors=True)
        self.vae = vae.eval().to(os.environ.get("DARKROOM_DEVICE", "cpu"))

    def predict(self, model_input: pandas.DataFrame) -> pandas.DataFrame:
        """Rebuild the pictures of a table, one at a time: each answer depends on its own picture alone."""
        return pandas.DataFrame({"image": [self._rebuilt(text) for text in model_input["image"]]})

    def _rebuilt(self, text: str) -> str:
        import torch
        from PIL import Image

        with Image.open(io.BytesIO(base64.b64decode(text))) as file:
            picture = file.convert("RGB")
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        width, height = (max(factor, round(side / factor) * factor) for side in picture.size)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1  # N3HW in [-1, 1]
        with torch.inference_mode():
            latents = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
            rebuilt = self.vae.decode(latents).sample[0].float().cpu()
        drawn = ((rebuilt.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        answer = io.BytesIO()
        Image.fromarray(drawn).save(answer, "PNG")
        return base64.b64encode(answer.getvalue()).decode("ascii")


mlflow.models.set_model(Rebuilder())
