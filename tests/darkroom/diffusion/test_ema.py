"""The average of the weights."""

import torch

from darkroom.diffusion.ema import Ema


def test_it_forgets_its_start_and_follows_with_the_stated_decay() -> None:
    weight = torch.zeros(1)
    ema = Ema({"w": weight}, decay=0.9)
    expected = 0.0
    for step in range(200):
        ema.update({"w": torch.ones(1)}, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        torch.testing.assert_close(ema.average["w"], torch.tensor([expected]))
    assert weight.item() == 0  # the model's own weights are not touched
    assert ema.average["w"].item() > 0.9999
