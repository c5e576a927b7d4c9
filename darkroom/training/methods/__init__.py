"""The ways to train, by the name that a recipe has for each."""

from importlib import import_module

import torch

from darkroom.errors import RecipeError

from ..job import Job
from .base import Batch as Batch
from .base import Method as Method
from .base import Player as Player

# Name in a recipe -> module with its class METHOD. A new way to train is a file and a line here.
MODULES = {
    "full": "denoise",
    "lora": "lora",
    "textual-inversion": "inversion",
    "autoencoder": "autoencoder",
    "distill": "distill",
}


def method(job: Job, device: torch.device) -> Method:
    """The way to train that a job asks for, with its data and its model loaded."""
    if job.train.method not in MODULES:
        raise RecipeError(f"train.method = {job.train.method!r}: this darkroom knows {', '.join(MODULES)}")
    made: Method = import_module(f".{MODULES[job.train.method]}", __name__).METHOD(job, device)
    return made
