import pytest
import torch

from train.running import precision
from train.running.precision import best_precision


@pytest.mark.parametrize(
    ("accelerator", "cuda", "mps", "fast", "wanted"),
    [
        ("auto", None, False, True, "bf16-mixed"),
        ("auto", None, False, False, "32-true"),
        ("cpu", False, True, True, "bf16-mixed"),  # a GPU without bfloat16 that is not asked
        ("auto", False, False, True, "32-true"),  # the GPU trains, not the CPU that has it
        ("auto", True, False, False, "bf16-mixed"),
        ("gpu", True, False, False, "bf16-mixed"),
        ("cuda", False, False, True, "32-true"),
        ("cpu", True, False, False, "32-true"),
        ("auto", None, True, True, "32-true"),  # Apple's GPU comes before the CPU
        ("gpu", None, True, True, "32-true"),
        ("tpu", None, False, True, "32-true"),
    ],
)
def test_bfloat16_where_the_device_that_trains_has_it(
    monkeypatch: pytest.MonkeyPatch,
    accelerator: str,
    cuda: bool | None,
    mps: bool,
    fast: bool,
    wanted: str,
) -> None:
    """`cuda`: whether its GPU has bfloat16 in hardware, None without one; `fast`: the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: fast)
    assert best_precision(accelerator) == wanted
