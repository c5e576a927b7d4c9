"""Checkpoints: the newest whole one is used, and there is always one."""

from pathlib import Path

import torch

from darkroom.training import checkpoints


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((2, 3), value)}, "ema": {"w": torch.zeros(())}}


def test_the_newest_is_read_back_and_old_ones_go(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    for step in (10, 20, 30):
        checkpoints.save(tmp_path, step, tensors(step))
    assert [path.name for path in checkpoints.found(tmp_path)] == ["step-00000030", "step-00000020"]
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found[0] == 30
    assert torch.equal(found[1]["model"]["w"], torch.full((2, 3), 30.0))
    assert found[1]["ema"]["w"].shape == ()


def test_a_damaged_newest_is_passed_over(tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoints.save(tmp_path, step, tensors(step))
    damaged = tmp_path / "checkpoints/step-00000020/model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found[0] == 10
    (tmp_path / "checkpoints/step-00000010/state.json").unlink()
    assert checkpoints.newest(tmp_path) is None


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 10, tensors(1))
    (tmp_path / "checkpoints/.step-00000020.tmp").mkdir()
    assert [path.name for path in checkpoints.found(tmp_path)] == ["step-00000010"]


def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    # Channels-last weights, as in training: moments in another memory layout would meet the wrong weights.
    picture = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def begin() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
        (model(picture) * (index + 1)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    straight, straight_optimizer = begin()
    for index in range(6):
        step(straight, straight_optimizer, index)
    first, first_optimizer = begin()
    for index in range(3):
        step(first, first_optimizer, index)
    moments = checkpoints.optimizer_tensors(first_optimizer)
    checkpoints.save(tmp_path, 3, {"model": first.state_dict(), "optimizer": moments})
    found = checkpoints.newest(tmp_path)
    assert found is not None
    resumed, resumed_optimizer = begin()
    resumed.load_state_dict(found[1]["model"])
    checkpoints.restore_optimizer(resumed_optimizer, found[1]["optimizer"])
    for index in range(3, 6):
        step(resumed, resumed_optimizer, index)
    assert torch.equal(resumed.weight, straight.weight)
    assert torch.equal(resumed.bias, straight.bias)
