"""What layers draw follows from the seed alone."""

import torch

from darkroom.training.step import reseed


def test_reseeding_gives_what_torch_draws_from_that_seed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = torch.rand(4)
        torch.rand(3)
        reseed(torch.device("cpu"), 5)
        assert torch.equal(torch.rand(4), expected)
