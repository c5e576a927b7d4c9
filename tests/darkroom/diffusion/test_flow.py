"""Flow matching's path and its times."""

import torch

from darkroom.diffusion import flow
from darkroom.randomness import generator


def test_the_path_joins_picture_and_noise_at_a_constant_velocity() -> None:
    clean, noise = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)

    def at(time: float) -> torch.Tensor:
        return flow.interpolate(clean, noise, torch.full((4,), time))

    assert torch.equal(at(0.0), clean)
    assert torch.equal(at(1.0), noise)
    torch.testing.assert_close((at(0.7) - at(0.3)) / 0.4, flow.velocity(clean, noise))


def test_times_are_logit_normal() -> None:
    times = flow.draw_times(20_000, 0.5, 1.2, generator("times"))
    assert ((times > 0) & (times < 1)).all()
    logits = torch.logit(times.double())
    assert abs(logits.mean() - 0.5) < 0.05
    assert abs(logits.std() - 1.2) < 0.05


def test_fixed_times_cover_the_unit_interval_evenly() -> None:
    torch.testing.assert_close(flow.fixed_times(4), torch.tensor([0.125, 0.375, 0.625, 0.875]))
