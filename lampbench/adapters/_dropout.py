"""Dropout masks that depend on what they are for, and on nothing else.

A global generator would give a user other masks among other users than alone. Here every bit is a hash of the
user's seed, the step, the example, the module, the position and the feature, so a mask is the same
whatever the batch, its order, its padding and the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lampbench.core import later

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lampbench.backbone import PassWindow
else:
    torch = later("torch")

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def row_key(seed: int, step: int, example: int) -> int:
    """A 63-bit key of one training example at one step of one user."""
    key = seed & _MASK
    for part in (step, example):
        key = _mixed((key + (part + 1) * _GOLDEN) & _MASK)
    return key >> 1


def dropped(x: Tensor, keys: Tensor, module: int, window: PassWindow, probability: float) -> Tensor:
    """``x`` with some values set to 0 and the others scaled up.

    Args:
        x: The columns of a pass, from ``window.offset`` on: (rows, columns, features), or axes of size 1 between.
        keys: The key of each prompt (``row_key``), shape (prompts,), int64.
        module: Number of the adapted module.
        window: Which columns and prompts the pass computes.
        probability: That a value is dropped.
    """
    columns = torch.arange(window.offset, window.offset + x.flatten(1, -2).shape[1], device=x.device)
    positions = columns - window.starts.unsqueeze(1)
    kept = dropout_mask(keys[window.rows], module, positions, x.shape[-1], probability)
    return x * (kept.to(x.dtype) / (1.0 - probability)).view(x.shape)


def dropout_mask(keys: Tensor, module: int, positions: Tensor, features: int, probability: float) -> Tensor:
    """What is kept, shape (rows, columns, features), boolean.

    Args:
        keys: One key per row (``row_key``), shape (rows,), int64.
        module: Number of the adapted module.
        positions: Of each column in its own sequence, shape (rows, columns), int64.
        features: Width of what is dropped from.
        probability: That a value is dropped; resolved to 2^-32.
    """
    device = keys.device
    # Wrapping products of int64, then the upper half as int32: integer arithmetic alone, alike everywhere.
    cells = _hashed((keys + _signed((module + 1) * _GOLDEN)).unsqueeze(1) + positions * _signed(_GOLDEN))
    columns = _hashed(torch.arange(features, device=device) * _signed(_GOLDEN))
    bits = cells.unsqueeze(-1) ^ columns
    bits ^= bits >> 15
    bits *= 0x2C1B3C6D
    bits ^= bits >> 12
    bits *= 0x297A2D39
    return bits >= min(2**31 - 1, round(probability * 2**32) - 2**31)


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _hashed(values: Tensor) -> Tensor:
    """int64 to well-mixed int32."""
    values = (values ^ (values >> 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> 27)) * _signed(0x94D049BB133111EB)
    return (values >> 32).to(torch.int32)


def _signed(value: int) -> int:
    """The int64 with the same bits as the unsigned ``value``."""
    value &= _MASK
    return value - (1 << 64) if value >= 1 << 63 else value
