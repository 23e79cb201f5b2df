"""Linear maps whose frozen weights are kept in 4 or 8 bits.

The packed values are those that bitsandbytes makes. They are unpacked for each use, forward and backward, so a map
computes what a plain one with the unpacked weight computes: on any device, for any batch, in either engine.
bitsandbytes' own modules do not: its int8 rounds what enters a map too, in a way that depends on the batch, and its
nf4 computes in bfloat16 on processors that can, whatever the dtype.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lampbench.backbone._load import mute_bitsandbytes
from lampbench.core import InputError, first_line

QUANTIZATIONS = ("nf4", "int8")
# Values that share a scale, as bitsandbytes and QLoRA have it.
_BLOCK = 64
# Quantizing must reach most of what the decoder layers hold, or its name would promise what it does not keep.
_LEAST_SHARE = 0.5


class QuantizedLinear(nn.Linear):
    """A frozen linear map with a packed weight.

    Attributes:
        weight: The unpacked weight, made anew each time it is asked for. It is no parameter.
    """

    packed: Tensor
    scales: Tensor
    like: Tensor

    def __init__(self, plain: nn.Linear, quantization: str, device: str) -> None:
        # Past nn.Linear, which would register a weight.
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.quantization = quantization
        packed, scales = _PACK[quantization](plain.weight.detach().to(device))
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        # Has the dtype of the plain weight, and follows the model's.
        self.register_buffer("like", plain.weight.new_empty(0, device=device))
        self.bias = None if plain.bias is None else nn.Parameter(plain.bias.detach().to(device), requires_grad=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override] # a parameter in the plain map
        return self.unpacked()

    def unpacked(self) -> Tensor:
        """The weight that the packed values stand for, in the dtype of the plain map's."""
        dtype = self.like.dtype
        if self.quantization == "int8":
            return (self.packed.float() * (self.scales.float() / 127).unsqueeze(1)).to(dtype)
        shape = torch.Size((self.out_features, self.in_features))
        # Its kernels have no float64.
        kernel = torch.float32 if dtype == torch.float64 else dtype
        state = _kernels().QuantState(self.scales.float(), shape, blocksize=_BLOCK, quant_type="nf4", dtype=kernel)
        unpacked: Tensor = _kernels().dequantize_4bit(self.packed, state)
        return unpacked.to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        mapped: Tensor = _Unpacking.apply(input, self)  # type: ignore[no-untyped-call]
        return mapped

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.quantization}"


class _Unpacking(torch.autograd.Function):
    """A linear map that keeps no unpacked weight for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: QuantizedLinear) -> Tensor:
        ctx.module = module
        return linear(x, module.unpacked(), module.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.module.unpacked(), None


def quantize_layers(layers: nn.ModuleList, quantization: str, device: str) -> None:
    """Pack the linear maps of the decoder layers in place; the packed weights lie on ``device``.

    Embeddings, norms and the head stay as they are.
    """
    for owner, name, plain in _plain_maps(layers):
        setattr(owner, name, QuantizedLinear(plain, quantization, device))


def check_quantization(quantization: str, device: str | None) -> None:
    """Try it on a small matrix.

    Args:
        quantization: Its name.
        device: Where; None if the device is another machine's.

    Raises:
        InputError: There is no such quantization, bitsandbytes is not installed, or it does not work on ``device``.
    """
    if quantization not in QUANTIZATIONS:
        raise InputError(f"--quantize {quantization}: expected one of {', '.join(QUANTIZATIONS)}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"--quantize {quantization}: needs bitsandbytes; pip install 'lampbench[quantize]'")
    if device is None:
        return
    mute_bitsandbytes()
    try:
        tried = QuantizedLinear(nn.Linear(_BLOCK, _BLOCK, bias=False), quantization, device)
        tried(torch.ones(1, _BLOCK, device=device)).sum().item()
    except Exception as error:  # whatever a library without kernels for a device raises
        reason = first_line(error) or type(error).__name__
        raise InputError(
            f"--quantize {quantization}: bitsandbytes does not work on {device}: {reason[:300]}; use another --device, "
            "or leave --quantize out"
        ) from error


def check_quantizable(layers: nn.ModuleList, model: str, quantization: str) -> None:
    """Raise InputError if most weights of the decoder layers are in no plain linear map (shapes suffice)."""
    reached = sum(plain.weight.numel() for _, _, plain in _plain_maps(layers))
    share = reached / max(1, sum(parameter.numel() for parameter in layers.parameters()))
    if share < _LEAST_SHARE:
        raise InputError(
            f"--quantize {quantization}: {model}: {share:.0%} of the weights in its decoder layers are in plain linear "
            f"maps, which is what can be quantized; expected {_LEAST_SHARE:.0%} or more; leave --quantize out"
        )


def _plain_maps(layers: nn.ModuleList) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Each linear map with the module that holds it and its name there; classes derived from nn.Linear are left out."""
    return [
        (owner, name, plain)
        for owner in layers.modules()
        for name, plain in owner.named_children()
        if type(plain) is nn.Linear
    ]


def _kernels() -> Any:
    from bitsandbytes import functional

    return functional


def _pack_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    packed, scales, _ = _kernels().int8_vectorwise_quant(weight.to(torch.float16))
    return packed, scales


def _pack_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    packed, state = _kernels().quantize_4bit(weight.contiguous(), blocksize=_BLOCK, quant_type="nf4")
    return packed, state.absmax


_PACK: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {"nf4": _pack_nf4, "int8": _pack_int8}
