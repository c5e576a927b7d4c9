"""What a denoiser learns: the path from picture to noise, what is predicted along it, and how its error is weighed.

Two paths. Flow matching's is straight, x_t = (1 - t) x_0 + t e with t in (0, 1); its target is the velocity e - x_0
(Lipman et al. 2022). DDPM's is x_t = a_t x_0 + s_t e with a_t^2 + s_t^2 = 1 for t = 0 ... 999 (Ho et al. 2020); its
target is the noise e, the picture x_0, or v = a_t e - s_t x_0 (Salimans and Ho 2022).

An objective is found again from the scheduler of a finished pipeline, so that a model can be judged by itself.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.nn import functional

from darkroom.errors import RecipeError
from darkroom.recipe_training import Kind as Kind
from darkroom.recipe_training import Objective as Plan
from darkroom.recipe_training import misfit

from . import flow

STEPS = 1000  # of the DDPM path
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample", "flow": "flow_prediction"}


class Objective(ABC):
    """One way to train a denoiser. Tensors are NCHW; ``times`` are N, as :meth:`draw_times` gives them."""

    kind: Kind

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @abstractmethod
    def draw_times(self, count: int, mean: float, std: float, generator: torch.Generator) -> torch.Tensor:
        """Times of a training step."""

    @abstractmethod
    def fixed_times(self, count: int) -> torch.Tensor:
        """``count`` times evenly over the path: those of every validation."""

    @abstractmethod
    def model_times(self, times: torch.Tensor) -> torch.Tensor:
        """Times as diffusers' denoisers take them, 0 to 1000."""

    @abstractmethod
    def noisy(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The point of the path at these times."""

    @abstractmethod
    def target(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What the denoiser is to predict there."""

    @abstractmethod
    def clean(self, noisy: torch.Tensor, predicted: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The picture that a prediction amounts to."""

    @abstractmethod
    def scheduler(self) -> Any:
        """The sampler of a finished pipeline."""

    def weights(self, times: torch.Tensor) -> torch.Tensor | None:
        """The weight of each row's error; None: all equal."""
        return None

    def error(
        self, predicted: torch.Tensor, target: torch.Tensor, times: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss: the mean over rows of their weighted mean errors.

        ``mask``: N1HW in [0, 1]; each row's error is then the mean over what it shows.
        """
        weights = self.weights(times)
        if weights is None and mask is None and self.plan.loss == "mse":
            return functional.mse_loss(predicted, target)
        if self.plan.loss == "huber":
            # Divided by delta, so that it is |error| far out and its gradient does not shrink with delta.
            each = functional.huber_loss(predicted, target, reduction="none", delta=self.plan.huber_delta)
            each = each / self.plan.huber_delta
        else:
            each = functional.mse_loss(predicted, target, reduction="none")
        if mask is None:
            rows = each.mean(dim=(1, 2, 3))
        else:
            rows = (each * mask).sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * each.shape[1]).clamp_min(1e-6)
        return (rows if weights is None else rows * weights).mean()


class Flow(Objective):
    """Flow matching on straight paths; times are shares of noise in (0, 1)."""

    kind = "flow"

    def draw_times(self, count: int, mean: float, std: float, generator: torch.Generator) -> torch.Tensor:
        """Logit-normal times."""
        return flow.draw_times(count, mean, std, generator)

    def fixed_times(self, count: int) -> torch.Tensor:
        """The midpoints of equal parts of (0, 1)."""
        return flow.fixed_times(count)

    def model_times(self, times: torch.Tensor) -> torch.Tensor:
        """1000 t."""
        return times * flow.TIME_SCALE

    def noisy(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """(1 - t) x_0 + t e."""
        return flow.interpolate(clean, noise, times)

    def target(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """e - x_0."""
        return flow.velocity(clean, noise)

    def clean(self, noisy: torch.Tensor, predicted: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """x_t - t v."""
        return noisy - times.view(-1, 1, 1, 1) * predicted

    def scheduler(self) -> Any:
        """DPM-Solver++ (Lu et al. 2022) on the straight path."""
        from diffusers import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)


class Ddpm(Objective):
    """The DDPM path with one of its three targets; times are the integers 0 to 999."""

    def __init__(self, plan: Plan, kind: Kind) -> None:
        super().__init__(plan)
        self.kind = kind
        self.alphas: torch.Tensor = self.scheduler().alphas_cumprod  # [STEPS] float32: a_t^2

    def draw_times(self, count: int, mean: float, std: float, generator: torch.Generator) -> torch.Tensor:
        """Uniform times; ``mean`` and ``std`` belong to flow matching."""
        return torch.randint(0, STEPS, (count,), generator=generator)

    def fixed_times(self, count: int) -> torch.Tensor:
        """Evenly from the first to the last time."""
        return ((torch.arange(count) + 0.5) / count * STEPS).long()

    def model_times(self, times: torch.Tensor) -> torch.Tensor:
        """The times themselves."""
        return times

    def _path(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        alphas = self.alphas.to(times.device)[times].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()

    def noisy(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """a_t x_0 + s_t e."""
        signal, sigma = self._path(times)
        return signal * clean + sigma * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """e, x_0 or a_t e - s_t x_0."""
        if self.kind == "epsilon":
            return noise
        if self.kind == "x0":
            return clean
        signal, sigma = self._path(times)
        return signal * noise - sigma * clean

    def clean(self, noisy: torch.Tensor, predicted: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`target`."""
        signal, sigma = self._path(times)
        if self.kind == "x0":
            return predicted
        if self.kind == "epsilon":
            return (noisy - sigma * predicted) / signal
        return signal * noisy - sigma * predicted

    def weights(self, times: torch.Tensor) -> torch.Tensor | None:
        """min-SNR-gamma (Hang et al. 2023): min(SNR, gamma) in terms of x_0, as each target has it.

        With v, the divisor is SNR + 1, so that a time without any signal has a weight and no NaN.
        """
        gamma = self.plan.min_snr_gamma
        if gamma is None:
            return None
        alphas = self.alphas.to(times.device)[times]
        snr = alphas / (1 - alphas)
        least = snr.clamp(max=gamma)
        if self.kind == "x0":
            return least
        return least / (snr if self.kind == "epsilon" else snr + 1)

    def scheduler(self) -> Any:
        """DDIM (Song et al. 2020), which draws well after little training, too; trailing steps (Lin et al. 2023)."""
        from diffusers import DDIMScheduler

        return DDIMScheduler(
            num_train_timesteps=STEPS,
            beta_start=0.0001 if self.plan.betas == "linear" else 0.00085,
            beta_end=0.02 if self.plan.betas == "linear" else 0.012,
            beta_schedule=self.plan.betas,
            rescale_betas_zero_snr=self.plan.zero_terminal_snr,
            prediction_type=PREDICTIONS[self.kind],
            timestep_spacing="trailing",
            set_alpha_to_one=False,
            clip_sample=False,
            steps_offset=1,
        )


def make(plan: Plan, kind: Kind) -> Objective:
    """The objective of a recipe, whose kind is known by now; raises :class:`RecipeError` for options it has not."""
    if found := misfit(plan, kind):
        raise RecipeError(f"train.objective, which learns {kind}: {found}")
    return Flow(plan) if kind == "flow" else Ddpm(plan, kind)


def of_scheduler(scheduler: Any) -> Objective:
    """The objective that a finished pipeline was trained for, read from its scheduler's configuration."""
    config = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if config.get("use_flow_sigmas") or type(scheduler).__name__.startswith("FlowMatch"):
        return Flow(Plan(kind="flow"))
    kinds: dict[str, Kind] = {PREDICTIONS["epsilon"]: "epsilon", PREDICTIONS["v"]: "v", PREDICTIONS["x0"]: "x0"}
    found = Ddpm(Plan(), kinds[prediction])
    if hasattr(scheduler, "alphas_cumprod"):
        found.alphas = scheduler.alphas_cumprod.float().cpu()  # also of schedules that a recipe cannot name
    return found


def perturbed(noise: torch.Tensor, plan: Plan, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(the noise that is learnt, the noise of the input): with an offset (Guttenberg 2023) and input perturbation
    (Ning et al. 2023) where the recipe has them; nothing more is drawn where it has not.
    """
    if plan.noise_offset:
        noise = noise + plan.noise_offset * torch.randn((*noise.shape[:2], 1, 1), generator=generator)
    if plan.input_perturbation:
        return noise, noise + plan.input_perturbation * torch.randn(noise.shape, generator=generator)
    return noise, noise
