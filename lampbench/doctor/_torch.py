"""What torch can do here; each device is made to compute something."""

from __future__ import annotations

import warnings
from typing import Any


def torch_facts() -> dict[str, Any]:
    """Threads, what ``auto`` chooses, and every GPU, with what fails there."""
    import torch

    from lampbench.backbone import device_and_dtype

    torch.ones(2).numpy()  # fails where torch and numpy were built for different versions
    reason = _reason(torch)
    device, dtype = device_and_dtype("auto", "auto")
    return {
        "threads": torch.get_num_threads(),
        "built_for": _built_for(torch),
        "gpu_usable": reason is None,
        "gpu_reason": reason,
        "gpus": [_gpu(torch, index) for index in range(torch.cuda.device_count())] if reason is None else [],
        "auto_device": device,
        "auto_dtype": dtype,
    }


def _built_for(torch: Any) -> str | None:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else None


def _reason(torch: Any) -> str | None:
    """Why there is no GPU for torch; None where there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if torch.cuda.is_available():
            return None
        try:
            torch.cuda.init()
        except Exception as error:  # torch raises many kinds here
            return str(error).strip().splitlines()[0]
    return "torch sees no GPU"


def _gpu(torch: Any, index: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"gpu": None, "memory": None, "memory_free": None, "error": None}
    try:
        facts["gpu"] = torch.cuda.get_device_name(index)
        facts["memory_free"], facts["memory"] = torch.cuda.mem_get_info(index)
        ones = torch.ones(8, 8, device=f"cuda:{index}")
        (ones @ ones).sum().item()
    except Exception as error:  # no memory left, no kernels for this GPU, a driver that is ill
        facts["error"] = str(error).strip().splitlines()[0]
    return facts
