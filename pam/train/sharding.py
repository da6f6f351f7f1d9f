"""Shard the frozen layers of an LLM over the processes (FSDP2), if no GPU holds it with its batch.

Each of N processes keeps 1/N of the weights of every decoder layer. A layer is gathered before it
runs, in the forward and in the backward pass, and freed after it. Embeddings and LM head stay
whole, because they are read in many places.

The trained weights stay whole too, and DistributedDataParallel keeps them equal. Checkpoints hold
only these, so they need no joining. DistributedDataParallel would broadcast all weights at the
start, which it cannot do with sharded ones. It leaves these out.

Gathering is a collective operation, so all processes must run the LLM equally often.
"""

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from pam.llm.causal_lm import CausalLM
from pam.log import get_logger
from pam.train.processes import world

logger = get_logger(__name__)


def shard(model: nn.Module, llm: CausalLM, device: str) -> None:
    """Shard the frozen decoder layers of `llm`, a part of `model`, in place.

    Every process must have loaded the same weights: it needs memory (not that of its GPU) for all
    of them until here. `device`: "cuda" or "cpu".
    """
    whole = bytes_here(llm)
    mesh = init_device_mesh(device, (world(),))
    layers = llm.backbone.layers
    trained = {p for name, p in model.named_parameters() if p.requires_grad or "lora_" in name}
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=trained)
    # The common root shards nothing. It lets a layer be gathered while another one runs.
    others = {p for p in llm.backbone.parameters() if not isinstance(p, DTensor)}
    fully_shard(llm.backbone, mesh=mesh, ignored_params=others)
    names = [name for name, p in model.named_parameters() if isinstance(p, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    llm.sharded = True
    logger.info("the LLM's layers are sharded: %d of %d bytes here", bytes_here(llm), whole)


def bytes_here(llm: CausalLM) -> int:
    """Bytes of frozen weights of the decoder layers that this process keeps."""
    frozen = [p for name, p in llm.backbone.layers.named_parameters() if "lora_" not in name]
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
    return sum(part.numel() * part.element_size() for part in parts)
