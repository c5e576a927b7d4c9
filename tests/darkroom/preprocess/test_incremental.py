"""Shards of several shapes, variants and missing captions; and that nothing is made twice."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.artifacts import Shards
from darkroom.devices import prepare
from darkroom.preprocess import latents, shards
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.pictures import fitted
from darkroom.preprocess.shards import load_parts, preprocess, read_index
from darkroom.preprocess.variants import variant
from darkroom.quality.picture import working_path
from darkroom.recipe import Augment, Preprocess
from darkroom.store import Store
from darkroom.weights.locate import Weights, locate

VAE = locate("builtin:digits-vae")
SIZES = [(20, 24), (48, 17), (15, 60), (90, 30), (33, 33)]
BUCKETS = Preprocess(size=16, buckets=3, bucket_step=8, max_bucket_aspect=4)
VARIED = BUCKETS.model_copy(update={"augment": Augment(variants=3, flip=True, crop=0.8, shuffle_tags=True)})


class Counting:
    """What the encoder was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        original = latents.Encoder.__call__

        def counted(encoder: latents.Encoder, pixels: torch.Tensor) -> torch.Tensor:
            self.rows.append(len(pixels))
            return original(encoder, pixels)

        monkeypatch.setattr(latents.Encoder, "__call__", counted)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.fixture
def rows(noise) -> list[dict]:
    return [noise(number, SIZES[number % len(SIZES)]) for number in range(40)]


def contents(made: Shards) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (made.path / "shards").iterdir()}


def test_no_row_is_lost_over_buckets(rows, checked_of, store: Store) -> None:
    made = preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store)
    content = read_index(made)
    by_id = {row["id"]: row for row in rows}
    seen = []
    for side in ("train", "validation"):
        for tensors, records in load_parts(made, side):
            height, width = tensors["pixels"].shape[-2:]
            assert tensors["latents"].shape[-2:] == (height // 2, width // 2)
            for pixels, record in zip(tensors["pixels"], records, strict=True):
                row = by_id[record["id"]]
                assert row["split"] == side
                assert record["caption"] == row["caption"]
                copy = working_path(store.root, row["working"])
                assert np.array_equal(pixels.numpy(), fitted(copy, (height, width)))
                seen.append(record["id"])
    assert sorted(seen) == sorted(by_id)
    assert len(content["buckets"]) == 3
    assert sum(sum(bucket["rows"].values()) for bucket in content["buckets"]) == len(rows)
    assert sum(shard["rows"] for shard in content["shards"]) == len(rows)
    assert all(0 <= bucket["cropped_mean"] <= bucket["cropped_most"] < 1 for bucket in content["buckets"])


def test_variants_are_rows_of_the_training_side_alone(rows, checked_of, store: Store) -> None:
    made = preprocess(checked_of(rows), VARIED, Latents(VAE), 1, store)
    numbers: dict[str, Counter[int]] = {}
    for side in ("train", "validation"):
        for tensors, records in load_parts(made, side):
            shape = tuple(tensors["pixels"].shape[-2:])
            for pixels, record in zip(tensors["pixels"], records, strict=True):
                number = record.get("variant", 0)
                numbers.setdefault(side, Counter())[number] += 1
                how = variant(record["id"], number, VARIED.augment)
                assert how.record().items() <= record.items()
                assert np.array_equal(pixels.numpy(), fitted(working_path(store.root, record["id"]), shape, how))
    assert numbers == {"train": Counter({0: 30, 1: 30, 2: 30}), "validation": Counter({0: 10})}
    assert read_index(made)["sides"] == {"train": 30, "validation": 10}  # pictures, not rows


def test_one_picture_more_is_one_call_of_the_encoder(rows, noise, checked_of, store: Store, encoded: Counting) -> None:
    before = contents(preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store))
    assert sum(encoded.rows) == len(rows)
    encoded.rows.clear()
    more = [*rows, noise(100, (40, 20))]
    after = contents(preprocess(checked_of(more), BUCKETS, Latents(VAE), 1, store))
    assert encoded.rows == [1]
    changed = {name.split(".")[0] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert len(changed) == 1
    # The same bytes as if all had been made at once, elsewhere.
    other = Store(store.root.parent / "other")
    (other.root / "working").parent.mkdir()
    (other.root / "working").symlink_to(store.root / "working")
    assert contents(preprocess(checked_of(more), BUCKETS, Latents(VAE), 1, other)) == after


def test_a_new_caption_links_the_tensors_that_are_there(rows, checked_of, store: Store, encoded: Counting) -> None:
    before = preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store)
    encoded.rows.clear()
    rows[5]["caption"] = "another caption"
    after = preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store)
    assert encoded.rows == []
    for path in (before.path / "shards").glob("*.safetensors"):
        assert path.samefile(after.path / "shards" / path.name)
    old, new = contents(before), contents(after)
    changed = [name for name in old if old[name] != new[name]]
    assert len(changed) == 1
    captions = {record["id"]: record["caption"] for record in json.loads(new[changed[0]])}
    assert captions[rows[5]["id"]] == "another caption"


def test_a_killed_run_keeps_what_it_encoded(rows, checked_of, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "AT_ONCE", 16)
    encoded = Counting(monkeypatch)
    counted = latents.Encoder.__call__

    def killed(encoder: latents.Encoder, pixels: torch.Tensor) -> torch.Tensor:
        if len(encoded.rows) == 2:
            raise KeyboardInterrupt
        return counted(encoder, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(latents.Encoder, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store)
    resumed = contents(preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store))
    assert sum(encoded.rows) == len(rows)
    left = {path.name for path in (store.root / "shardcache").iterdir()}
    assert len(left) == len(resumed) // 2  # no file but the shards
    other = Store(store.root.parent / "other")
    other.root.mkdir()
    (other.root / "working").symlink_to(store.root / "working")
    assert contents(preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, other)) == resumed


def test_a_lost_or_cut_cache_costs_time_alone(rows, checked_of, store: Store) -> None:
    first = contents(preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store))
    files = sorted((store.root / "shardcache").iterdir())
    files[0].unlink()
    content = files[1].read_bytes()
    files[1].unlink()  # the shards are links to it
    files[1].write_bytes(content[:-7])
    assert contents(preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store, fresh=True)) == first


def test_other_weights_or_threads_are_other_latents(
    rows, checked_of, store: Store, encoded: Counting, tmp_path: Path
) -> None:
    few = checked_of(rows[:8])
    preprocess(few, BUCKETS, Latents(VAE), 1, store)
    preprocess(few, BUCKETS, Latents(Weights("copy", VAE.path, "0" * 64)), 1, store)
    preprocess(few, BUCKETS, Latents(VAE), 2, store)
    assert sum(encoded.rows) == 3 * 8


def test_latents_depend_on_the_picture_alone() -> None:
    from darkroom.diffusion.pipeline import load_vae

    prepare(1, "cpu")
    vae = load_vae(VAE.path)
    for side, count in ((16, 20), (40, 5), (136, 2)):
        pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.manual_seed(0))
        together = latents.encode(vae, pixels)
        alone = torch.cat([latents.encode(vae, one[None]) for one in pixels])
        turned = latents.encode(vae, pixels.flip(0)).flip(0)
        assert torch.equal(together, alone)
        assert torch.equal(together, turned)


def test_what_is_encoded_is_what_the_pipeline_decodes() -> None:
    # With a shift_factor, too: StableDiffusionPipeline knows none.
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, scaling_factor=0.3, shift_factor=0.5).eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        mean = vae.encode(pixels.float() / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(latents.encode(vae, pixels) / vae.config.scaling_factor, mean)


def test_the_index_states_what_training_gets(rows, checked_of, store: Store) -> None:
    rows = [row | {"caption": None} if number % 2 else row for number, row in enumerate(rows)]
    made = preprocess(checked_of(rows), BUCKETS, Latents(VAE), 1, store)
    content = read_index(made)
    assert content["supervision"] == "partly captioned"
    assert content["captions"]["validation"] == {"with": 0, "without": 10}
    every = torch.cat([tensors["latents"].flatten(2).flatten(0) for tensors, _ in load_parts(made, "train")]).double()
    assert content["latent_statistics"]["mean"] == [pytest.approx(float(every.mean()), abs=1e-9)]
    assert content["latent_statistics"]["std"] == [pytest.approx(float(every.std(correction=0)), abs=1e-9)]
    assert content["latent_statistics"]["scaling_factor"] == pytest.approx(0.337, abs=0.1)
    silent = preprocess(checked_of([row | {"caption": None} for row in rows]), BUCKETS, Latents(VAE), 1, store)
    assert read_index(silent)["supervision"] == "unsupervised"


def test_a_spread_far_from_one_is_said() -> None:
    from darkroom.preprocess.index import warnings

    factors = {"scaling_factor": 0.2, "shift_factor": None}
    assert warnings([], [1.1, 0.9], Latents(VAE), factors) == []
    (said,) = warnings([], [4.0, 4.0], Latents(VAE), factors)
    assert "standard deviation is 4" in said
    assert "scaling_factor = 0.05" in said
    assert warnings([], [4.0, 4.0], Latents(None), factors) == [], "pixels have the spread that they have"
    shifted = factors | {"shift_factor": 0.1}
    assert "shift_factor" in warnings([], [1.0], Latents(VAE), shifted)[0]
    assert warnings([], [1.0], Latents(VAE, shift=True), shifted) == []


def test_fewer_shapes_than_asked_for_are_said(rows, checked_of, store: Store) -> None:
    plan = BUCKETS.model_copy(update={"max_bucket_aspect": 1.5})
    said = read_index(preprocess(checked_of(rows), plan, Latents(VAE), 1, store))["warnings"]
    assert any("preprocess.buckets = 3, but only 1" in sentence for sentence in said)
