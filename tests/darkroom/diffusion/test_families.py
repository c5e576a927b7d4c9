"""Every kind of pipeline: what is learnt and drawn is what the pipeline's own call asks its denoiser and draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from darkroom.diffusion.families import MODULES, Shape, family, family_of
from darkroom.diffusion.objectives import Objective, make, of_scheduler
from darkroom.diffusion.pipeline import save_pipeline
from darkroom.diffusion.sampling import draw, initial_noise
from darkroom.errors import RecipeError
from darkroom.preprocess.texts import encoders_digest
from darkroom.recipe import Sampler
from darkroom.recipe_training import DRAWN, NEEDED, OPTIONAL, SHIFTED, UNETS, Model
from darkroom.recipe_training import Objective as Plan
from darkroom.served_model import CLASSES
from darkroom.served_model import draw as served
from darkroom.weights.locate import locate
from tests.darkroom.diffusion.tiny import KINDS, MAKERS, saved

TEXTS = {"caption": ["a seven", "b8"], "label": ["goldfish", "white shark"], "nothing": ["", ""]}
STEPS = 3
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each pipeline on disk, by its name."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("pipelines")
    return {name: saved(name, root / name) for name in MAKERS}


@pytest.fixture(params=list(MAKERS))
def pipeline(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Any:
    return opened(folders[request.param])


def opened(folder: Path) -> Any:
    """As somebody who has nothing of darkroom opens it."""
    without: dict[str, Any] = {}
    if folder.name.endswith("without_t5"):
        without = {"text_encoder_3": None, "tokenizer_3": None}
    pipe = DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False, **without)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise_of(pipe: Any, count: int = 2) -> torch.Tensor:
    return torch.stack([initial_noise(1, index, family_of(pipe).latent_shape(pipe)) for index in range(count)])


def own_call(pipe: Any, texts: list[str], noise: torch.Tensor, guidance: float) -> Any:
    """The pipeline's own call, as its documentation writes it, from this noise."""
    kind = type(pipe).__name__
    generators = [torch.Generator().manual_seed(index) for index in range(len(texts))]
    options: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "np" if kind == "DDIMPipeline" else "pil"}
    if kind == "DDIMPipeline":
        options = {"num_inference_steps": STEPS, "batch_size": len(texts), "generator": generators}
    elif kind == "DiTPipeline":
        options |= {"class_labels": pipe.get_label_ids(texts), "guidance_scale": guidance, "generator": generators}
    elif kind == "FluxPipeline":
        packed = pipe._pack_latents(noise, *noise.shape)
        options |= {"prompt": texts, "latents": packed, "height": 16, "width": 16}
        told = pipe.transformer.config.guidance_embeds
        options |= {"guidance_scale": guidance} if told else {"true_cfg_scale": guidance, "negative_prompt": ["", ""]}
    else:
        options |= {"prompt": texts, "latents": noise, "guidance_scale": guidance}
    return pipe(**options).images


def noise_for(pipe: Any) -> torch.Tensor:
    """Noise that the calls which take none draw themselves from the generators of :func:`own_call`."""
    shape = family_of(pipe).latent_shape(pipe)
    return torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(index)) for index in range(2)])


def test_the_call_asks_its_denoiser_what_is_learnt(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = family_of(pipeline)
    texts = TEXTS[kind.asked_by]
    denoiser = getattr(pipeline, kind.denoiser)
    seen: list[tuple[tuple, dict, torch.Tensor]] = []
    forward = denoiser.forward

    def spy(*args: Any, **options: Any) -> Any:
        answer = forward(*args, **options)
        seen.append((args, options, answer[0] if isinstance(answer, tuple) else answer.sample))
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(denoiser, "forward", spy)
        own_call(pipeline, texts, noise_of(pipeline), guidance=1.0)
    assert len(seen) >= STEPS
    given = kind.encode(pipeline, texts)
    assert all(len(value) == 2 for value in given.values())
    for args, options, answer in seen:
        noisy = options.get("hidden_states", args[0] if args else None)
        times = options["timestep"] if "timestep" in options else args[1]
        if kind.name == "flux":
            noisy = pipeline._unpack_latents(noisy, 16, 16, pipeline.vae_scale_factor)
            answer = pipeline._unpack_latents(answer, 16, 16, pipeline.vae_scale_factor)
            times = times * 1000
        with torch.inference_mode():
            predicted = kind.predict(denoiser, noisy, times.expand(2), given)
        torch.testing.assert_close(predicted, answer[:, : noisy.shape[1]], **TOLERANCE)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_what_is_drawn_is_what_the_call_draws(pipeline: Any, guidance: float) -> None:
    kind = family_of(pipeline)
    texts, noise = TEXTS[kind.asked_by], noise_for(pipeline)
    expected = own_call(pipeline, texts, noise, guidance)
    found = kind.draw(pipeline, texts, noise, STEPS, guidance)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert found[0].size == (family_side(pipeline),) * 2


def family_side(pipeline: Any) -> int:
    return family_of(pipeline).latent_shape(pipeline)[1] * getattr(pipeline, "vae_scale_factor", scale_of(pipeline))


def scale_of(pipeline: Any) -> int:
    return 2 if hasattr(pipeline, "vae") else 1


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_served_model_draws_the_same(pipeline: Any, guidance: float) -> None:
    texts = TEXTS[family_of(pipeline).asked_by] * 2
    sampler = Sampler(steps=STEPS, guidance=guidance, batch=3)
    ours = draw(pipeline, texts, 5, sampler)
    theirs = served(pipeline, texts, seed=5, steps=STEPS, guidance=guidance, batch=3)
    assert len({picture.tobytes() for picture in ours}) > 1
    assert [picture.tobytes() for picture in ours] == [picture.tobytes() for picture in theirs]
    later = served(pipeline, texts[3:], seed=5, steps=STEPS, guidance=guidance, batch=3, first=3)
    assert later[0].tobytes() == ours[3].tobytes()


def test_a_texts_conditions_do_not_depend_on_the_others(pipeline: Any) -> None:
    kind = family_of(pipeline)
    texts = [*TEXTS[kind.asked_by], ""]
    together = kind.encode(pipeline, texts)
    for position, text in enumerate(texts):
        alone = kind.encode(pipeline, [text])
        assert alone.keys() == together.keys()
        assert all(torch.equal(alone[name][0], together[name][position]) for name in together)
    distinct = len({b"".join(value[row].numpy().tobytes() for value in together.values()) for row in range(3)})
    assert distinct == (1 if kind.asked_by == "nothing" else 3)
    assert all(value.dtype in (torch.float32, torch.int64) for value in together.values())


@pytest.mark.parametrize("name", list(KINDS))
def test_the_scheduler_tells_what_is_learnt(name: str, folders: dict[str, Path]) -> None:
    pipe = opened(folders[name])
    found = of_scheduler(pipe.scheduler)
    assert found.kind == KINDS[name]
    assert found.kind in family_of(pipe).objectives


def test_the_empty_prompt_of_xl_is_what_guides(folders: dict[str, Path]) -> None:
    pipe = opened(folders["stable_diffusion_xl"])
    kind = family_of(pipe)
    empty = kind.encode(pipe, [""])
    assert not empty["encoder_hidden_states"].any()
    assert not empty["text_embeds"].any()
    before = encoders_digest(kind.encoders(pipe))
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert kind.encode(pipe, [""])["text_embeds"].any()
    assert encoders_digest(kind.encoders(pipe)) != before, "or the cache would answer with the other"


def test_pictures_of_another_shape_are_seen_by_those_that_can(pipeline: Any) -> None:
    kind = family_of(pipeline)
    if kind.name == "dit":
        return  # refused in the recipe: test_recipe_families.py
    channels, side, _ = kind.latent_shape(pipeline)
    noisy = torch.randn(2, channels, side, side + 4)
    with torch.inference_mode():
        given = kind.encode(pipeline, TEXTS[kind.asked_by])
        assert kind.predict(getattr(pipeline, kind.denoiser), noisy, torch.tensor([5, 700]), given).shape == noisy.shape


def test_a_loaded_pipeline_can_be_made_to_draw_another_side(pipeline: Any, tmp_path: Path) -> None:
    kind = family_of(pipeline)
    channels, side, _ = kind.latent_shape(pipeline)
    if kind.name == "dit":
        with pytest.raises(RecipeError, match="draws pictures of 16 pixels alone"):
            kind.resize(pipeline, side + 4)
        return
    kind.resize(pipeline, side + 4)
    save_pipeline(pipeline, tmp_path / "resized", "")
    for pipe in (pipeline, opened(tmp_path / "resized")):
        assert kind.latent_shape(pipe) == (channels, side + 4, side + 4)
        (picture,) = draw(pipe, TEXTS[kind.asked_by][:1], 0, Sampler(steps=1, batch=1))
        assert picture.size == (family_side(pipe),) * 2


def test_what_was_drawn_last_is_no_part_of_what_is_saved(pipeline: Any, tmp_path: Path) -> None:
    save_pipeline(pipeline, tmp_path / "before", "")
    draw(pipeline, TEXTS[family_of(pipeline).asked_by][:1], 0, Sampler(steps=1, batch=1))
    save_pipeline(pipeline, tmp_path / "after", "")
    files = [path.relative_to(tmp_path / "before") for path in (tmp_path / "before").rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes(), file


def test_labels_survive_that_a_pipeline_is_loaded_and_saved(folders: dict[str, Path], tmp_path: Path) -> None:
    pipe = opened(folders["dit"])
    kind = family_of(pipe)
    before = kind.encode(pipe, ["tench", "Tinca tinca", "tench, Tinca tinca", "white shark", "", "cow"])
    assert before["class_labels"].tolist() == [0, 0, 1000, 2, 1000, 1000]
    assert kind.unknown(pipe, ["cow", "tench", "", "ape", "cow"]) == ("ape", "cow")
    save_pipeline(pipe, tmp_path / "again", "")
    again = opened(tmp_path / "again")
    assert again.labels == pipe.labels == {"Tinca tinca": 0, "goldfish": 1, "tench": 0, "white shark": 2}


def test_without_t5_is_saved_so_that_it_loads(folders: dict[str, Path], tmp_path: Path) -> None:
    pipe = opened(folders["stable_diffusion_3_without_t5"])
    sampler = Sampler(steps=2, guidance=2.0, batch=2)
    before = draw(pipe, TEXTS["caption"], 0, sampler)
    save_pipeline(pipe, tmp_path / "again", "")
    again = opened(tmp_path / "again")
    assert not again.text_encoder_3(torch.tensor([[0, 1, 2]])).last_hidden_state.any()
    assert family_of(again).encode(again, ["a"]).keys() == {"clip", "pooled"}
    assert [one.tobytes() for one in draw(again, TEXTS["caption"], 0, sampler)] == [one.tobytes() for one in before]


def test_unknown_labels_are_named_with_the_known_ones(folders: dict[str, Path]) -> None:
    pipe = opened(folders["dit"])
    with pytest.raises(ValueError, match="knows no label 'cow'; it knows Tinca tinca, goldfish, tench, white shark"):
        served(pipe, ["goldfish", "cow"], seed=0, steps=1, guidance=1, batch=1)


def test_a_pipeline_of_another_class_is_refused() -> None:
    other = type("KandinskyPipeline", (), {})()
    with pytest.raises(RecipeError, match="does not know the pipeline class KandinskyPipeline"):
        family_of(other)
    with pytest.raises(ValueError, match="is a KandinskyPipeline"):
        served(other, ["a"], seed=0, steps=1, guidance=1, batch=1)


def test_the_tables_of_names_agree_with_the_classes() -> None:
    assert MODULES.keys() | {"autoencoder"} == DRAWN.keys() == NEEDED.keys(), "an autoencoder draws nothing"
    assert OPTIONAL.keys() <= NEEDED.keys()
    found = {name: family(name) for name in MODULES}
    assert all(one.name == name and one.objectives == DRAWN[name] for name, one in found.items())
    assert tuple(name for name in MODULES if found[name].shifts_latents) == SHIFTED
    assert set(UNETS) == {name for name, one in found.items() if one.denoiser == "unet"}
    assert set(CLASSES) == {one.pipeline for one in found.values()}


SMALL: dict[str, Any] = {
    "unet": {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "attention_heads": 2,
        "norm_num_groups": 4,
    },
    "transformer": {"layers": 3, "heads": 2, "head_width": 16},
}
BUILTIN = {"vae": "builtin:digits-vae", "text_encoder": "builtin:digits-text-encoder"}


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.darkroom.diffusion.tiny import t5

    folder = tmp_path_factory.mktemp("t5")
    for part in t5(128):
        part.save_pretrained(folder)
    return str(folder)


def new(name: str, t5_folder: str, seed: int = 0, **shape: Any) -> tuple[Any, Objective]:
    """A pipeline from scratch, of the parts that are shipped."""
    names = {part: BUILTIN.get(part, BUILTIN["text_encoder"]) for part in NEEDED[name]}
    names |= {"text_encoder_2": t5_folder} if name == "flux" else {}
    plan = Model(
        family=name,
        **names,
        **{"unet" if name in UNETS else "transformer": SMALL["unet" if name in UNETS else "transformer"]},
    )
    parts = {part: locate(value).path for part, value in names.items()}
    objective = make(Plan(), DRAWN[name][0])
    where = Shape(**{"channels": 3 if name == "unconditional" else 1, "side": 8, "labels": ("one", "seven"), **shape})
    return family(name).new(plan, parts, where, objective, seed, 0.0), objective


@pytest.mark.parametrize("name", list(MODULES))
def test_one_from_scratch_is_an_ordinary_pipeline(name: str, t5_folder: str, tmp_path: Path) -> None:
    pipe, objective = new(name, t5_folder)
    kind = family_of(pipe)
    assert kind is family(name)
    assert of_scheduler(pipe.scheduler).kind == objective.kind
    weights = getattr(pipe, kind.denoiser).state_dict()
    same, other = (getattr(new(name, t5_folder, seed)[0], kind.denoiser).state_dict() for seed in (0, 1))
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert any(not torch.equal(weights[key], other[key]) for key in weights)

    texts = {"caption": ["seven", "one"], "label": ["seven", "one"], "nothing": ["", ""]}[kind.asked_by]
    given = kind.encode(pipe, texts)
    denoiser = getattr(pipe, kind.denoiser)
    shape = kind.latent_shape(pipe)
    assert shape[1:] == (8, 8)
    loss = kind.predict(denoiser, torch.randn(2, *shape), torch.tensor([5.0, 700.0]), given).square().mean()
    loss.backward()
    pipe.save_pretrained(tmp_path / "pipeline")
    again = opened(tmp_path / "pipeline")
    sampler = Sampler(steps=2, guidance=2.0, batch=2)
    first, second = (draw(one, texts, 0, sampler) for one in (pipe, again))
    assert [one.tobytes() for one in first] == [one.tobytes() for one in second]
    assert first[0].size == ((8, 8) if name == "unconditional" else (16, 16))
    printed = kind.call(texts[0], first[0].size[0], 2, 2.0)
    picture = eval(f"pipeline({printed}).images[0]", {"pipeline": again})  # as the model card has it
    assert picture.size == first[0].size


def test_transformers_start_as_the_identity(t5_folder: str) -> None:
    """adaLN-Zero: what a new transformer answers is zero, and yet every layer that decides it has a gradient."""
    for name in ("dit", "stable-diffusion-3", "flux"):
        pipe, _ = new(name, t5_folder)
        kind = family_of(pipe)
        given = kind.encode(pipe, ["seven", "one"])
        noisy = torch.randn(2, *kind.latent_shape(pipe))
        answer = kind.predict(pipe.transformer, noisy, torch.tensor([5.0, 700.0]), given)
        assert not answer.any()
        (answer - noisy).square().mean().backward()
        assert pipe.transformer.get_parameter("proj_out_2.weight" if name == "dit" else "proj_out.weight").grad.any()


def test_an_encoder_without_a_projection_is_used_as_it_is(t5_folder: str) -> None:
    pipe, _ = new("stable-diffusion-xl", t5_folder)
    assert torch.equal(pipe.text_encoder_2.text_projection.weight, torch.eye(64))


def test_a_projection_that_is_there_is_kept(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from darkroom.diffusion.families.encoders import load_clip

    folder = locate("builtin:clip-digits").path
    _, encoder = load_clip(folder, 2, True)
    expected = load_file(folder / "model.safetensors")["text_projection.weight"]
    assert torch.equal(encoder.text_projection.weight, expected)


def test_parts_are_found_where_pipelines_have_them(folders: dict[str, Path]) -> None:
    from darkroom.diffusion.families.encoders import load_clip, load_t5

    folder = folders["stable_diffusion_3"]
    pipe = opened(folder)
    assert load_clip(folder, 2, True)[1].config.projection_dim == 12
    first, third = load_clip(folder, 1, False)[1], load_t5(folder, 3)[1]
    assert torch.equal(first.get_input_embeddings().weight, pipe.text_encoder.get_input_embeddings().weight)
    assert torch.equal(third.shared.weight, pipe.text_encoder_3.shared.weight)


def test_dits_labels_are_dropped_by_the_data_alone(t5_folder: str) -> None:
    pipe, _ = new("dit", t5_folder)
    kind = family_of(pipe)
    torch.nn.init.normal_(pipe.transformer.proj_out_2.weight)
    torch.nn.init.normal_(pipe.transformer.proj_out_1.weight)
    pipe.transformer.train()
    noisy, times = torch.randn(64, 1, 8, 8), torch.full((64,), 500)
    given = kind.encode(pipe, ["seven"] * 64)
    state = torch.get_rng_state()
    first, second = (kind.predict(pipe.transformer, noisy, times, given) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state), "a resumed training would draw other numbers"
    assert not torch.equal(first, kind.predict(pipe.transformer, noisy, times, kind.encode(pipe, [""] * 64)))


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("dit", {"labels": ()}, "learns pictures by their labels"),
        ("dit", {"labels": tuple(f"{number}" for number in range(1001))}, "at most 1000 labels"),
        ("dit", {"side": 7}, "7 x 7, which model.transformer.patch_size = 2 does not divide"),
        ("stable-diffusion-3", {"side": 7}, "patch_size = 2 does not divide"),
        ("flux", {"side": 7}, "token side = 2 does not divide"),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, shape: dict[str, Any], words: str, t5_folder: str) -> None:
    with pytest.raises(RecipeError, match=words):
        new(name, t5_folder, **shape)
