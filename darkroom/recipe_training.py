"""The sections of a recipe that say what is trained and how: ``[model]`` and ``[train]`` with all below them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .section import NoEffect, Section

Family = Literal[
    "stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "flux", "dit", "unconditional", "autoencoder"
]
Kind = Literal["flow", "epsilon", "v", "x0"]

# What each family's pipeline can draw with, the first from scratch. A sampler of DDIMPipeline knows no straight path;
# those of Stable Diffusion 3 and Flux know nothing else.
DRAWN: dict[str, tuple[Kind, ...]] = {
    "stable-diffusion": ("flow", "epsilon", "v", "x0"),
    "stable-diffusion-xl": ("flow", "epsilon", "v", "x0"),
    "stable-diffusion-3": ("flow",),
    "flux": ("flow",),
    "dit": ("flow", "epsilon", "v", "x0"),
    "unconditional": ("v", "epsilon", "x0"),
    "autoencoder": (),  # it rebuilds
}
# The frozen parts that each family has; those without which none is made from scratch come first.
NEEDED: dict[str, tuple[str, ...]] = {
    "stable-diffusion": ("vae", "text_encoder"),
    "stable-diffusion-xl": ("vae", "text_encoder", "text_encoder_2"),
    "stable-diffusion-3": ("vae", "text_encoder", "text_encoder_2"),
    "flux": ("vae", "text_encoder", "text_encoder_2"),
    "dit": ("vae",),
    "unconditional": (),
    "autoencoder": (),
}
OPTIONAL: dict[str, tuple[str, ...]] = {"stable-diffusion-3": ("text_encoder_3",), "autoencoder": ("vae",)}
PARTS = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")
SHIFTED = ("stable-diffusion-3", "flux")  # whose pipelines add the autoencoder's shift_factor again
UNETS = ("stable-diffusion", "stable-diffusion-xl", "unconditional")  # the others' denoisers are transformers
WITH_DROPOUT = (*UNETS, "dit")  # the other transformers have none

# Sections of [train] that only some methods read.
TAUGHT_BY = {
    "lora": ("lora",),
    "inversion": ("textual-inversion",),
    "autoencoder": ("autoencoder",),
    "distill": ("distill",),
    "adversary": ("autoencoder", "distill"),
    "distance": ("full", "lora", "textual-inversion"),
}


class UNet(Section):
    """Arguments of diffusers' ``UNet2DConditionModel`` and ``UNet2DModel``; the rest follows from the other parts."""

    block_out_channels: tuple[int, ...] = Field((320, 640, 1280, 1280), description="Channels of each level.")
    down_block_types: tuple[str, ...] = Field(
        ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        description="Block classes on the way down.",
    )
    up_block_types: tuple[str, ...] = Field(
        ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        description="Block classes on the way up.",
    )
    layers_per_block: int = Field(2, ge=1, le=8, description="Residual layers of each level.")
    attention_heads: int = Field(8, ge=1, le=64, description="Heads of each attention layer.")
    norm_num_groups: int = Field(
        32, ge=1, description="Groups of the group norms; of fewer than 8 channels each they are slow on a CPU."
    )

    @model_validator(mode="after")
    def _levels_agree(self) -> "UNet":
        levels = len(self.block_out_channels)
        if {len(self.down_block_types), len(self.up_block_types)} != {levels}:
            raise ValueError("block_out_channels, down_block_types and up_block_types must have one entry a level")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups or channels % self.attention_heads:
                raise ValueError(
                    f"block_out_channels: {channels} must be a multiple of norm_num_groups ({self.norm_num_groups}) "
                    f"and of attention_heads ({self.attention_heads})"
                )
        return self


class Transformer(Section):
    """The shape of a diffusion transformer (DiT, Stable Diffusion 3, Flux) that is trained from scratch."""

    patch_size: int = Field(2, ge=1, le=8, description="Side of a token. Latent pixels.")
    layers: int = Field(12, ge=1, le=64, description="Transformer blocks.")
    heads: int = Field(6, ge=1, le=64, description="Heads of each attention layer.")
    head_width: int = Field(64, ge=8, le=256, multiple_of=8, description="Channels of each head.")


class Model(Section):
    """What is trained: the kind of pipeline, where its weights come from, and the shape of what is new."""

    family: Family = Field("stable-diffusion", description="The kind of diffusers pipeline; see docs/methods.md.")
    base: str | None = Field(
        None,
        description="Pre-trained pipeline to start from: a name on the hub, a local folder or .safetensors file, "
        "NAME/VERSION or NAME@ALIAS of the registry, or champion (this recipe's own). None: from scratch.",
    )
    vae: str | None = Field(
        None,
        description="Autoencoder: builtin:NAME, a local folder or a name on the hub. None: that of the base; for "
        "unconditional models without a base: none, they work on pixels.",
    )
    text_encoder: str | None = Field(None, description="CLIP text encoder with its tokenizer: likewise.")
    text_encoder_2: str | None = Field(None, description="The second one of Stable Diffusion XL, 3 and Flux.")
    text_encoder_3: str | None = Field(None, description="The T5 encoder of Stable Diffusion 3; None: without.")
    unet: UNet = Field(UNet(), description="The shape of a UNet that is trained from scratch.")
    transformer: Transformer = Field(Transformer(), description="The shape of a transformer trained from scratch.")

    @model_validator(mode="after")
    def _parts_are_named(self) -> "Model":
        has = (*NEEDED[self.family], *OPTIONAL.get(self.family, ()))
        if surplus := [name for name in PARTS if name not in has and getattr(self, name) is not None]:
            why = " works on pixels: it" if self.family == "unconditional" else ""
            raise ValueError(f"family = {self.family!r}{why} has no {' and no '.join(surplus)}: leave it out")
        lacking = [name for name in NEEDED[self.family] if getattr(self, name) is None]
        if self.base is None and lacking:
            raise ValueError(
                f"{' and '.join(lacking)} must be named to train {self.family} from scratch; "
                "or name a base to start from"
            )
        return self

    @model_validator(mode="after")
    def _shape_is_of_the_family(self) -> "Model":
        if self.family in UNETS and self.transformer != Transformer():
            raise ValueError(f"family = {self.family!r} trains a UNet: give its shape under model.unet")
        if self.family not in UNETS and self.unet != UNet():
            raise ValueError(f"family = {self.family!r} trains a transformer: give its shape under model.transformer")
        if self.family == "flux" and self.transformer.patch_size != 2:
            raise ValueError(
                f"transformer.patch_size = {self.transformer.patch_size}: Flux's pipeline makes tokens of 2 x 2: "
                "leave it out"
            )
        return self


class Objective(Section):
    """What the denoiser learns to predict, and how its error is weighed."""

    kind: Kind | None = Field(
        None,
        description="flow: velocity on straight paths; epsilon, v, x0: noise, velocity or picture on the DDPM "
        "path. None: that of the base; from scratch flow, for unconditional models v.",
    )
    betas: Literal["scaled_linear", "linear", "squaredcos_cap_v2"] = Field(
        "scaled_linear", description="Noise schedule of the DDPM path, in diffusers' names."
    )
    zero_terminal_snr: bool = Field(False, description="Rescale the DDPM path so that its end is noise alone.")
    min_snr_gamma: float | None = Field(None, gt=0, description="min-SNR weighting on the DDPM path; 5 is usual.")
    noise_offset: float = Field(0.0, ge=0, le=1, description="Noise that is constant over each channel, added to it.")
    input_perturbation: float = Field(0.0, ge=0, le=1, description="Further noise in the input alone; 0.1 is usual.")
    loss: Literal["mse", "huber"] = Field("mse", description="huber is less moved by outliers.")
    huber_delta: float = Field(0.1, gt=0, description="Where the Huber loss turns from square to linear.")
    masked: bool = Field(False, description="Weigh the error by each picture's alpha channel.")

    @model_validator(mode="after")
    def _goes_together(self) -> "Objective":
        if self.kind is not None and (found := misfit(self, self.kind)):
            raise ValueError(found)
        if self.huber_delta != type(self).model_fields["huber_delta"].default and self.loss != "huber":
            raise ValueError("huber_delta belongs to loss = 'huber': set it, or leave huber_delta out")
        return self


def misfit(plan: Objective, kind: Kind) -> str | None:
    """Why an objective's options do not go with its kind, in one sentence; None where they do."""
    if kind == "flow":
        plain = Objective.model_construct()
        for name in ("zero_terminal_snr", "min_snr_gamma", "betas"):
            if getattr(plan, name) != getattr(plain, name):
                return f"{name} belongs to the DDPM path: set kind to epsilon, v or x0, or leave it out"
    if plan.zero_terminal_snr and kind == "epsilon":
        return (
            "zero_terminal_snr cannot be learnt as epsilon, whose last step has no signal to divide by: set kind = 'v'"
        )
    return None


class Optimizer(Section):
    """The optimiser of the trained parameters."""

    name: Literal["adamw", "adafactor", "muon", "adamw8bit", "prodigy"] = Field(
        "adamw", description="adamw8bit and prodigy are extras: pip install darkroom[optimizers]."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean of gradients (all but adafactor).")
    beta2: float = Field(0.99, gt=0, lt=1, description="Decay of the mean of their squares.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum.")


class Lora(Section):
    """Low-rank adapters (train.method = "lora")."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of each adapter.")
    alpha: float | None = Field(None, gt=0, description="Scale: the adapter counts alpha / rank. None: as the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout at the adapters' input.")
    dora: bool = Field(False, description="DoRA: directions by the adapter, magnitudes by a vector of their own.")
    targets: tuple[str, ...] = Field(
        (), description="Ends of the names of the adapted layers; empty: the attention layers of the family."
    )


class Prior(Section):
    """DreamBooth's prior preservation: the base's own pictures of the class keep it from forgetting."""

    prompt: str = Field(min_length=1, description="Prompt of the class, such as 'a photo of a dog'.")
    pictures: int = Field(100, ge=1, description="Pictures of the class, drawn once by the base.")
    weight: float = Field(1.0, gt=0, description="Weight of their loss.")
    steps: int = Field(30, ge=1, le=1000, description="Steps in which they are drawn.")
    guidance: float = Field(7.5, ge=0, description="Guidance with which they are drawn; 1 is without.")
    batch: int = Field(4, ge=1, description="Pictures drawn together.")


class Inversion(Section):
    """Textual inversion (train.method = "textual-inversion"): a new word is learnt, nothing else."""

    token: str = Field("<concept>", pattern=r"^\S+$", description="The new word, as prompts will write it.")
    start: str = Field("", description="A known word that it starts from; empty: the mean of all words.")
    vectors: int = Field(1, ge=1, le=32, description="Embeddings that the word takes.")


class Adversary(Section):
    """The discriminator against which an autoencoder or a distilled sampler is trained."""

    weight: float = Field(0.5, ge=0, description="Weight of the adversarial loss; 0: none.")
    start: int = Field(0, ge=0, description="First step at which it counts. Steps.")
    channels: int = Field(64, ge=8, le=512, description="Channels of its first layer, or of each of its heads.")
    layers: int = Field(
        3,
        ge=1,
        le=5,
        description="autoencoder: strided layers, each doubles the side of the judged patches. distill: how many of "
        "the teacher's blocks, evenly from first to last, are judged by a head each.",
    )
    learning_rate: float | None = Field(None, gt=0, description="None: that of the generator.")


class Autoencoder(Section):
    """Training of the autoencoder itself (train.method = "autoencoder"): where model.vae is unset, of this shape."""

    block_out_channels: tuple[int, ...] = Field((128, 256, 512, 512), description="Channels of each level.")
    layers_per_block: int = Field(2, ge=1, le=8, description="Residual layers of each level.")
    latent_channels: int = Field(4, ge=1, le=64, description="Channels of the latents.")
    norm_num_groups: int = Field(
        32, ge=1, description="Groups of the group norms; of fewer than 8 channels each they are slow on a CPU."
    )
    kl_weight: float = Field(
        1e-6, ge=0, description="Weight of the latents' divergence from a standard normal, summed and per pixel value."
    )
    perceptual: Annotated[str | None, NoEffect] = Field(  # which one it is, the digest of its weights says
        None, description="Network whose features are compared: a CLIP folder, builtin:NAME or hub name; None: none."
    )
    perceptual_weight: float = Field(1.0, ge=0, description="Weight of the perceptual loss.")

    @model_validator(mode="after")
    def _groups_fit(self) -> "Autoencoder":
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels: {channels} must be a multiple of norm_num_groups ({self.norm_num_groups})"
                )
        return self


class Distill(Section):
    """Adversarial distillation (train.method = "distill") of the base into few steps."""

    steps: int = Field(4, ge=1, le=8, description="Steps that the student draws in.")
    guidance: float = Field(1.0, ge=1, description="Guidance of the teacher, which the student takes in.")
    teacher_steps: int = Field(25, ge=1, le=1000, description="Steps that the teacher draws in, by its own sampler.")
    pairs: int = Field(2048, ge=1, description="Pictures that the teacher draws, before the first step.")
    teacher_weight: float = Field(1.0, ge=0, description="Weight of the distance from the teacher's pictures.")


class EarlyStop(Section):
    """When training ends before its last step."""

    patience: int = Field(ge=1, description="Validations without a better one after which training ends.")
    least_gain: float = Field(
        0.0, ge=0, lt=1, description="Share by which the loss, or the distance, must fall to count as better."
    )


class Distance(Section):
    """Pictures that each validation draws as well, with evaluate.sampler; `early_stop` and `keep` go by them."""

    features: Annotated[str, NoEffect] = Field(  # which one it is, the digest of its weights says
        description="Network that sees drawn and held-out pictures: as evaluate.features, with a folder or hub name."
    )
    layer: Literal["projection", "pooled"] = Field("projection", description="As `evaluate.layer`.")
    count: int = Field(
        256,
        ge=16,
        description="Pictures that are drawn. The distance is Fréchet's where there are two for each of the features' "
        "dimensions, of the drawn and of the held-out ones; else the kernel distance.",
    )


class Guard(Section):
    """What happens at a loss that is not finite or leaps."""

    spike: float | None = Field(
        10.0,
        gt=1,
        description="A step whose gradient norm is so many times its recent median, and above clip_gradient_norm, is "
        "not applied. None: only what is not finite.",
    )
    retries: int = Field(2, ge=0, le=10, description="How often the last good checkpoint is gone back to.")
    rate_factor: float = Field(0.5, gt=0, le=1, description="The rate's factor at each such return.")


class Distributed(Section):
    """Training by several processes, each on a device of its own. Results differ by rounding alone."""

    processes: int = Field(1, ge=1, le=4096, description="Processes over all machines; they share out each batch.")
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp: each process holds the whole model; fsdp: each holds its share of weights, averages and "
        "moments, for models that one device cannot hold.",
    )


class Train(Section):
    """The training."""

    method: Literal["full", "lora", "textual-inversion", "autoencoder", "distill"] = Field(
        "full", description="What is trained: the whole denoiser, adapters, a word, the autoencoder, a fast student."
    )
    steps: int = Field(ge=1, description="Optimiser steps.")
    batch: int = Field(128, ge=1, description="Pictures a step, over all processes and parts.")
    micro_batch: Annotated[int | None, NoEffect] = Field(
        None, ge=1, description="Pictures computed together, for less memory; None: a process's whole share."
    )
    learning_rate: float = Field(1e-4, gt=0, le=10, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="The rate after the warm-up.")
    warmup_steps: int = Field(100, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay of weights, not of biases.")
    clip_gradient_norm: float | None = Field(1.0, gt=0, description="Gradients are scaled to at most this norm.")
    ema_decay: float | None = Field(0.999, ge=0, lt=1, description="Decay a step of the averaged weights; None: none.")
    caption_dropout: float = Field(0.1, ge=0, le=1, description="Share of captions replaced by the empty one.")
    timestep_mean: float = Field(0.0, description="Mean of logit(t), t the noise's share (flow).")
    timestep_std: float = Field(1.0, gt=0, description="Standard deviation of logit(t) (flow).")
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    lora: Lora = Lora()
    prior: Prior | None = None
    inversion: Inversion = Inversion()
    adversary: Adversary = Adversary()
    autoencoder: Autoencoder = Autoencoder()
    distill: Distill = Distill()
    early_stop: EarlyStop | None = None
    distance: Distance | None = None
    guard: Guard = Guard()
    keep: Literal["last", "best"] = Field(
        "last", description="Which weights are kept at the end: the last, or those of the best validation."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in the residual layers of a new UNet.")
    distributed: Annotated[Distributed, NoEffect] = Distributed()
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="What the denoiser computes in.")
    gradient_checkpointing: Annotated[bool, NoEffect] = Field(
        False, description="Compute activations twice instead of keeping them."
    )
    attention: Annotated[Literal["auto", "flash", "efficient", "cudnn", "math"], NoEffect] = Field(
        "auto", description="Kernel of attention in training steps; torch chooses by default. A CPU has flash and math."
    )
    compile: Annotated[bool, NoEffect] = Field(False, description="Compile the denoiser with torch.compile.")
    threads: int = Field(2, ge=1, description="CPU threads; another number gives other last bits.")
    checkpoint_every: Annotated[int, NoEffect] = Field(100, ge=1, description="Steps between checkpoints.")
    validate_every: Annotated[int, NoEffect] = Field(100, ge=1, description="Steps between validation losses.")
    grid_every: Annotated[int, NoEffect] = Field(200, ge=1, description="Steps between sample grids.")
    log_every: Annotated[int, NoEffect] = Field(10, ge=1, description="Steps between logged losses.")
    prompts: Annotated[tuple[str, ...], NoEffect] = Field((), description="Prompts of the sample grids.")

    @model_validator(mode="after")
    def _optimizer_is_set_up(self) -> "Train":
        kind, usual = self.optimizer.name, Optimizer()
        if kind == "prodigy" and self.learning_rate != 1:
            raise ValueError(
                f"learning_rate = {self.learning_rate} does not go with optimizer.name = 'prodigy', which finds the "
                "rate itself: set learning_rate = 1"
            )
        if kind == "adafactor" and (self.optimizer.beta1, self.optimizer.beta2) != (usual.beta1, usual.beta2):
            raise ValueError("optimizer.beta1 and optimizer.beta2 are not adafactor's: leave them out")
        if kind != "muon" and self.optimizer.momentum != usual.momentum:
            raise ValueError(f"optimizer.momentum is muon's, not that of {kind}: leave it out")
        return self

    @model_validator(mode="after")
    def _validation_happens(self) -> "Train":
        if self.early_stop is not None and self.validate_every * self.early_stop.patience >= self.steps:
            raise ValueError(
                f"early_stop.patience = {self.early_stop.patience} validations, one every {self.validate_every} steps, "
                f"cannot pass within {self.steps} steps: lower patience or validate_every"
            )
        return self

    @model_validator(mode="after")
    def _can_be_shared_out(self) -> "Train":
        processes, strategy = self.distributed.processes, self.distributed.strategy
        if self.batch % processes:
            raise ValueError(
                f"batch = {self.batch} cannot be shared out equally among distributed.processes = {processes}: make it "
                "a multiple of it"
            )
        if strategy == "fsdp" and self.method not in ("full", "lora"):
            raise ValueError(
                f'distributed.strategy = "fsdp" shards a denoiser, which method = "{self.method}" does not train '
                'alone: set it to "ddp"'
            )
        if strategy == "fsdp" and self.optimizer.name != "adamw":
            raise ValueError(
                f'distributed.strategy = "fsdp" works with optimizer.name = "adamw", not "{self.optimizer.name}": '
                "change one of them"
            )
        return self

    def digest_fields(self) -> dict[str, Any]:
        """As of every section; where validation decides which weights are kept, its interval counts too."""
        fields = super().digest_fields()
        if self.goes_by_validation:
            return fields | {"validate_every": self.validate_every}
        return {name: value for name, value in fields.items() if name != "distance"}

    @property
    def goes_by_validation(self) -> bool:
        """Whether validations decide how long is trained, or which weights are kept."""
        return self.early_stop is not None or self.keep == "best"

    @property
    def goes_by_distance(self) -> bool:
        """Whether they do so by the pictures that they draw."""
        return self.distance is not None and self.goes_by_validation


def disagreement(model: Model, train: Train) -> str | None:
    """Why a kind of pipeline cannot be trained in this way, in one sentence; None where it can."""
    drawn, plan = DRAWN[model.family], train.objective
    if model.family == "autoencoder":
        idle = plan.model_fields_set | {"prompts", "distance"} & train.model_fields_set
        return f"train: {min(idle)} belongs to denoisers: an autoencoder learns without; leave it out" if idle else None
    if plan.kind is not None and plan.kind not in drawn:
        return (
            f"train.objective.kind = {plan.kind!r}: the pipeline of model.family = {model.family!r} cannot draw with "
            f"it; it can with {', '.join(drawn)}"
        )
    # A base tells its kind only once it is there; where a family knows one kind alone, it is that.
    kind = plan.kind or (drawn[0] if model.base is None or len(drawn) == 1 else None)
    if kind is not None and (found := misfit(plan, kind)):
        return f"train.objective: {found} (model.family = {model.family!r} learns {kind})"
    plain = Train(steps=1)
    if kind is not None and kind != "flow":
        for name in ("timestep_mean", "timestep_std"):
            if getattr(train, name) != getattr(plain, name):
                return f"train.{name} belongs to objective.kind = 'flow', and {kind} is learnt: leave it out"
    if train.dropout and model.family not in WITH_DROPOUT:
        return f"train.dropout = {train.dropout}: the transformer of {model.family} has none; leave it out"
    if found := _untaught(model, train):
        return found
    if train.prompts and model.family == "unconditional":
        return "train.prompts: an unconditional model is asked for nothing; leave them out"
    return None


def _untaught(model: Model, train: Train) -> str | None:
    """Why a base cannot be taught something in this way, in one sentence; None where it can."""
    if train.method in ("lora", "textual-inversion") and model.base is None:
        return f"train.method = {train.method!r} teaches a finished model something: name one in model.base"
    if train.method == "textual-inversion" and model.family != "stable-diffusion":
        return f"train.method = 'textual-inversion' is for the family stable-diffusion, not {model.family}: use 'lora'"
    for section, methods in TAUGHT_BY.items():
        if section in train.model_fields_set and train.method not in methods:
            return f"train.{section} does nothing with train.method = {train.method!r}: set {' or '.join(methods)}"
    # While there is no champion training starts from scratch, and these say of what shape; models:/ is what it becomes.
    if model.base is not None and not model.base.startswith(("champion", "models:/")):
        if train.dropout:
            return f"train.dropout = {train.dropout} is of a new denoiser, and model.base brings its own: leave it out"
        if named := sorted({"unet", "transformer"} & model.model_fields_set):
            return f"model.{named[0]} is the shape of a new denoiser, and model.base brings its own: leave it out"
    if train.prior is None:
        return None
    if model.base is None:
        return "train.prior: it is the base that draws the pictures of the class: name model.base"
    if train.method not in ("full", "lora"):
        return f"train.prior is for train.method 'full' and 'lora', not {train.method!r}"
    if model.family in ("dit", "unconditional"):
        return f"train.prior needs a model that knows prompts, not one of the family {model.family}"
    return None
