"""Refuses an LLM that cannot be read in parts, by its name and before anything is trained.

What must hold is tried on the loaded LLM: a batch of two prompts of different lengths, each read
first, and then what follows them, gives the logits of one pass over all token ids.
"""

# U prompts, P prompt tokens, T tokens that follow

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from pam.errors import UserError

if TYPE_CHECKING:
    from pam.llm.causal_lm import CausalLM

TEXT = "The quick brown fox jumps over the lazy dog."
PROMPTS, FOLLOWING = (5, 3), 4  # tokens
PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
EXACT, ROUGH = 1e-3, 0.3  # largest relative error in float32, and in types of fewer bits


def refuse_unsupported(lm: "CausalLM", folder: str) -> None:
    """`UserError` with the reason if the LLM cannot be used."""
    reason = without_plain_cache(lm.llm)
    if reason is None:
        try:
            with torch.no_grad(), attention_of_cpu(lm.llm):
                reason = wrong_in_parts(lm)
        except Exception as error:  # whatever a family's code does with a cache that it lacks
            reason = f"it cannot be read in parts ({type(error).__name__}: {one_line(error)})"
    if reason is not None:
        raise UserError(
            f"llm_conf.path: {folder!r}: LLMs of the family {lm.llm.config.model_type} cannot be "
            f"used: {reason}"
        )


def without_plain_cache(llm: PreTrainedModel) -> str | None:
    """Why keys and values are not all that the LLM keeps of what it has read."""
    if llm._is_stateful:
        return "it keeps a recurrent state, not only keys and values"
    try:
        layers = DynamicCache(config=llm.config).layers
    except (AttributeError, KeyError) as error:
        return f"transformers has no cache for its layers ({one_line(error)})"
    for number, layer in enumerate(layers):
        if type(layer) not in PLAIN_LAYERS:
            return f"its layer {number} keeps more than keys and values ({type(layer).__name__})"
    return None


def wrong_in_parts(lm: "CausalLM") -> str | None:
    """What goes wrong when a text is read in parts."""
    ids = torch.tensor(lm.text_ids(TEXT))
    following, prompts = ids[:FOLLOWING], [ids[-length:] for length in PROMPTS]
    expected = torch.stack([in_one_pass(lm, torch.cat([p, following])) for p in prompts])
    padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    states = lm.read_prompts(padded, torch.tensor(PROMPTS))
    if states.pooled.shape[1] != lm.width:
        return f"its embeddings are {lm.width} wide, its states {states.pooled.shape[1]}"
    if any(keys is None or keys.dim() != 4 for keys in states.keys):
        return "not every layer keeps keys and values"
    start, steps = states.mask.sum(1, keepdim=True), torch.arange(FOLLOWING)
    mask = torch.cat([states.mask, states.mask.new_ones(len(prompts), FOLLOWING)], 1)
    embeds = lm.embed(following).expand(len(prompts), -1, -1)
    got = lm.logits(lm.read(embeds, mask, start + steps, states.cache()))
    if relative_error(got, expected) > (EXACT if lm.embeddings.dtype == torch.float32 else ROUGH):
        return "read in parts, or by embeddings instead of token ids, it says something else"
    return None


def in_one_pass(lm: "CausalLM", ids: Int[Tensor, " N"]) -> Float[Tensor, "T V"]:
    return lm.llm(input_ids=ids[None], use_cache=False).logits[0, -FOLLOWING:].float()


def relative_error(got: Float[Tensor, "U T V"], expected: Float[Tensor, "U T V"]) -> float:
    """The norm of the difference against that of what differs between tokens."""
    spread = (expected - expected.mean(-1, keepdim=True)).norm()
    return float((got - expected).norm() / spread.clamp(min=1e-6))


@contextmanager
def attention_of_cpu(llm: PreTrainedModel) -> Iterator[None]:
    """An implementation of attention that needs no GPU, while the context lasts."""
    chosen = llm.config._attn_implementation
    if chosen in ("eager", "sdpa"):
        yield
        return
    llm.set_attn_implementation("eager")
    try:
        yield
    finally:
        llm.set_attn_implementation(chosen)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
