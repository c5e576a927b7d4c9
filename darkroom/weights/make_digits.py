"""Make the small weights that the built-in recipe needs: ``python -m darkroom.weights.make_digits`` (minutes).

Three folders are written beside this file, with their sha256 sums; on one machine they are the same bytes every time:

- ``clip-digits``: encodes pictures and captions for the evaluation.
- ``digits-text-encoder``: conditions the diffusion model; from another seed, so that no model is judged by itself.
- ``digits-vae``: brings pictures to the latents that the diffusion model learns, and back.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from . import digit_captions, digit_clip, digit_pictures, digit_vae
from .digit_pictures import PIXELS, Pictures

HERE = Path(__file__).parent
FOLDERS = ("clip-digits", "digits-text-encoder", "digits-vae")
THREADS = 1  # two gain little on models this small, and another number gives other last bits
CLIP_SEED, TEXT_ENCODER_SEED, VAE_SEED = 0, 1, 2
CLIP_STEPS, VAE_STEPS = 1000, 3000


def main() -> None:
    """Train, measure and save everything."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    train, validation = digit_pictures.load("train"), digit_pictures.load("validation")
    reader = digit_captions.tokenizer()
    print(f"{len(train)} pictures to learn from, {len(validation)} to measure on; vocabulary {len(reader)}")

    vae = digit_vae.train(train, VAE_STEPS, VAE_SEED)
    report_vae(vae, validation)
    clip = digit_clip.train(train, reader, CLIP_STEPS, CLIP_SEED)
    report_clip("clip-digits", clip, reader, validation)
    other = digit_clip.train(train, reader, CLIP_STEPS, TEXT_ENCODER_SEED)
    report_clip("digits-text-encoder", other, reader, validation)

    for folder in FOLDERS:
        shutil.rmtree(HERE / folder, ignore_errors=True)
    vae.save_pretrained(HERE / "digits-vae")
    clip.save_pretrained(HERE / "clip-digits")
    CLIPProcessor(image_processor(), reader).save_pretrained(HERE / "clip-digits")
    other.text_model.save_pretrained(HERE / "digits-text-encoder")
    reader.save_pretrained(HERE / "digits-text-encoder")
    write_sums()


def image_processor() -> CLIPImageProcessor:
    """Pillow pictures -> [-1, 1] at 16 pixels, never cropped."""
    return CLIPImageProcessor(
        size={"height": PIXELS, "width": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        do_center_crop=False,
        resample=3,  # bicubic
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def report_vae(vae: AutoencoderKL, pictures: Pictures) -> None:
    """Print how well pictures come back from the latents."""
    before, after = pictures.images, digit_vae.rebuild(vae, pictures.images)
    print(
        f"digits-vae: {digit_vae.peak_signal_to_noise(vae, pictures):.1f} dB; a support vector machine reads "
        f"{share_read(before, pictures.digits):.1%} of the pictures and {share_read(after, pictures.digits):.1%} of "
        f"the rebuilt ones; scaling factor {vae.config.scaling_factor}"
    )


def report_clip(name: str, model: CLIPModel, reader: CLIPTokenizer, pictures: Pictures) -> None:
    """Print how often pictures and captions are nearest to the right digit's captions."""
    held_out = digit_captions.held_out_captions()
    print(
        f"{name}: right for {digit_clip.accuracy_on_pictures(model, reader, pictures):.1%} of pictures, "
        f"{digit_clip.accuracy_on_captions(model, reader, digit_captions.known_captions()):.1%} of known and "
        f"{digit_clip.accuracy_on_captions(model, reader, held_out):.1%} of held-out wordings"
    )


def share_read(images: Tensor, labels: Tensor) -> float:
    """The share of pictures [N, 3, 16, 16] that a support vector machine trained on all scans reads as ``labels``."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    scans = load_digits()
    pixels = functional.avg_pool2d(images.mean(dim=1, keepdim=True), 2)  # [N, 1, 8, 8] in [-1, 1]
    read = SVC(gamma=0.001).fit(scans.data, scans.target).predict(((pixels + 1) * 8).flatten(1).numpy())
    return float(np.mean(read == labels.numpy()))


def write_sums() -> None:
    """Make the files readable to all and write SHA256SUMS, which ``sha256sum --check SHA256SUMS`` verifies."""
    files = sorted(file for folder in FOLDERS for file in (HERE / folder).rglob("*") if file.is_file())
    for file in files:
        file.chmod(0o644)  # safetensors keeps its files to their owner, who may not be the one who installs this
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(HERE).as_posix()}\n" for file in files
    ]
    (HERE / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
