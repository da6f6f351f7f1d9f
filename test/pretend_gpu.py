"""A simulated GPU: tensors say cuda:0, are computed on the CPU, and refuse CPU tensors.

So a machine without a GPU finds what was left on the CPU, and what CUDA's autocast makes of types.
It has forward passes alone, and neither kernels nor several processes. It changes torch, so use it
in a process of its own (test/model/test_pretend_gpu.py), within `PretendGPU()`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)
COPIES = (aten.copy_.default, aten._to_copy.default)
# Operators whose indices may be on the CPU.
INDEXING = (
    *(aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default),
    *(aten.index_put_.default, aten._index_put_impl_.default),
)


class OnGPU(Tensor):
    """A tensor that says cuda:0; `inner` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor):
        options = {"dtype": inner.dtype, "device": DEVICE, "strides": inner.stride()}
        offset = inner.storage_offset()
        return Tensor._make_wrapper_subclass(cls, inner.size(), storage_offset=offset, **options)

    def __init__(self, inner: Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})

    def tolist(self) -> list:
        return self.inner.detach().tolist()

    def numpy(self, *_: Any, **__: Any):
        raise TypeError("can't convert a tensor of a GPU to numpy")

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(without_lists(index), value)

    def __repr__(self, **_: Any) -> str:
        return f"OnGPU({self.inner!r})"


class PretendGPU(TorchDispatchMode):
    """Context in which "cuda" is a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


def run(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    if "_use_cudnn_ctc_loss" in str(function) or "_use_miopen_ctc_loss" in str(function):
        return False
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    on_gpu = [x for x in tensors if isinstance(x, OnGPU)]
    if on_gpu and function not in COPIES:
        checked = [args[0], *args[2:3]] if function in INDEXING else tensors
        if others := [tuple(x.shape) for x in checked if is_misplaced(x)]:
            raise RuntimeError(f"{function}: tensors of the CPU {others} among those of a GPU")
    asked, kwargs = kwargs.get("device"), dict(kwargs)
    to_gpu = torch.device(asked).type == "cuda" if asked is not None else bool(on_gpu)
    if asked is not None:
        kwargs["device"] = torch.device("cpu")
    kwargs.pop("pin_memory", None)
    inner = tree_map(lambda x: x.inner if isinstance(x, OnGPU) else x, (args, kwargs))
    found = function(*inner[0], **inner[1])
    if function is aten.copy_.default:
        return args[0]
    if not to_gpu:
        return found
    found = tree_map(lambda x: OnGPU(x) if is_of_cpu(x) else x, found)
    return return_and_correct_aliasing(function, args, kwargs, found) if on_gpu else found


def is_of_cpu(x: Any) -> bool:
    return isinstance(x, Tensor) and not isinstance(x, OnGPU)


def is_misplaced(x: Any) -> bool:
    """A tensor without dimensions is a number, which may be mixed with any."""
    return is_of_cpu(x) and x.dim() > 0


def without_lists(index: Any) -> Any:
    """A list as an index is made a tensor of the CPU by torch's C++ code, which is allowed."""
    if isinstance(index, list):
        return torch.tensor(index)
    return tuple(map(without_lists, index)) if isinstance(index, tuple) else index


def attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """As PyTorch's function, which chooses kernels that the pretended device does not have."""
    tensors = [x for x in (query, key, value, attn_mask) if x is not None]
    if not any(isinstance(x, OnGPU) for x in tensors):
        options = {"scale": scale, "enable_gqa": enable_gqa}
        return CPU_ATTENTION(query, key, value, attn_mask, dropout_p, is_causal, **options)
    if not all(isinstance(x, OnGPU) for x in tensors):
        raise RuntimeError("attention: tensors of the CPU among those of a GPU")
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = (x.to(dtype) for x in (query, key, value))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(f"attention: types {query.dtype}, {key.dtype}, {value.dtype}")
    if attn_mask is not None and attn_mask.dtype not in (torch.bool, query.dtype, torch.float32):
        raise RuntimeError(f"attention: a mask of {attn_mask.dtype} for {query.dtype}")
    with torch.autocast("cuda", enabled=False):
        if enable_gqa:
            key, value = (
                x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value)
            )
        scores = (query.float() @ key.float().mT) * (scale or query.shape[-1] ** -0.5)
        if is_causal:
            before = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
            scores = scores.masked_fill(~before, -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask.float()
        return (scores.softmax(-1) @ value.float()).to(query.dtype)


CPU_ATTENTION = F.scaled_dot_product_attention
F.scaled_dot_product_attention = torch._C._nn.scaled_dot_product_attention = attention
torch._C._ensureCUDADeviceGuardSet()
torch._C._set_only_lift_cpu_tensors(True)
torch.__future__.set_overwrite_module_params_on_conversion(True)
torch.cuda._lazy_init = lambda: None
torch.cuda.current_device = lambda: 0
torch.cuda.device_count = lambda: 1
torch.cuda.is_available = torch.cuda.is_initialized = lambda: True
torch.cuda.is_bf16_supported = lambda *_, **__: True
torch.cuda.amp.common.amp_definitely_not_available = lambda: False
