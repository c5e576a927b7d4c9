"""Flow matching: the straight path between a picture and noise, and the velocity along it.

Lipman et al., Flow Matching for Generative Modeling (2022); Liu et al., Rectified Flow (2022); timesteps after Esser et
al., Scaling Rectified Flow Transformers (2024), section 3.1.
"""

import torch

# diffusers' schedulers and UNets count time from 0 to 1000.
TIME_SCALE = 1000.0


def draw_times(count: int, mean: float, std: float, generator: torch.Generator) -> torch.Tensor:
    """``count`` times in (0, 1), logit-normal: logit(t) ~ N(mean, std^2); t is the noise's share."""
    return torch.sigmoid(mean + std * torch.randn(count, generator=generator))


def interpolate(clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """x_t = (1 - t) x_0 + t e, for NCHW ``clean`` and ``noise`` and N ``times``."""
    times = times.view(-1, 1, 1, 1)
    return (1 - times) * clean + times * noise


def velocity(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """dx_t/dt = e - x_0: what the model predicts."""
    return noise - clean


def fixed_times(count: int) -> torch.Tensor:
    """The midpoints of ``count`` equal parts of (0, 1): the times of every validation."""
    return (torch.arange(count) + 0.5) / count
