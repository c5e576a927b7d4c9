"""How torch computes here: made once a process, before the first tensor."""


def prepare(threads: int, device: str) -> None:
    """Fix the thread count and deterministic algorithms, so that the same work gives the same bits on one machine."""
    import os

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Else each new tensor is filled before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # A metric must not depend on TF32's ten bits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device != "cpu":
        torch.zeros(1, device=device)  # a device that is not there says so now
