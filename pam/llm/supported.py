"""Check before training that the LLM can read a text in parts; the error names its family.

There are two tests on the loaded LLM. Embeddings must give the same logits as token ids. A batch of
two prompts of different lengths, followed by embeddings that belong to no token, must give the same
logits as single passes.
"""

# U prompts, N tokens, T positions, V vocabulary, D width of the LLM

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from pam.errors import PamError
from pam.llm.load import attention_of_cpu

if TYPE_CHECKING:
    from pam.llm.causal_lm import CausalLM

TEXT = "The quick brown fox jumps over the lazy dog."
PROMPTS, FRAMES = (5, 3), 4  # lengths
PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
EXACT, ROUGH = 1e-3, 0.3  # largest relative error in float32, and in smaller types


def refuse_unsupported(lm: "CausalLM", folder: str) -> None:
    """`PamError` with the reason if the LLM cannot be used."""
    reason = without_plain_cache(lm.llm)
    if reason is None:
        try:
            with torch.no_grad(), attention_of_cpu(lm.llm):
                reason = wrong_in_parts(lm)
        except Exception as error:  # a family's code may fail in any way
            reason = f"it cannot be read in parts ({type(error).__name__}: {one_line(error)})"
    if reason is not None:
        raise PamError(
            f"llm_conf.path: {folder!r}: LLMs of the family {lm.llm.config.model_type} cannot be "
            f"used: {reason}"
        )


def without_plain_cache(llm: PreTrainedModel) -> str | None:
    """Why the LLM's cache has more than keys and values; None if it does not."""
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
    """The fault when a text is read in parts; None if there is none."""
    ids = torch.tensor(lm.text_ids(TEXT))
    words, dtype = lm.embed(ids), lm.embeddings.dtype
    if differ(in_one_pass(lm, input_ids=ids), in_one_pass(lm, inputs_embeds=words), dtype):
        return "it uses more of a token than its embedding"
    audio = (words[:FRAMES] + words[FRAMES : 2 * FRAMES]) / 2
    prompts = [ids[-length:] for length in PROMPTS]
    whole = [torch.cat([lm.embed(prompt), audio]) for prompt in prompts]
    expected = torch.stack([in_one_pass(lm, inputs_embeds=row)[-FRAMES:] for row in whole])
    states = lm.read_prompts(pad_sequence(prompts, batch_first=True), torch.tensor(PROMPTS))
    if states.pooled.shape[1] != lm.width:
        return f"its embeddings are {lm.width} wide, its states {states.pooled.shape[1]}"
    if any(keys is None or keys.dim() != 4 for keys in states.keys):
        return "not every layer keeps keys and values"
    positions = states.mask.sum(1, keepdim=True) + torch.arange(FRAMES)
    mask = torch.cat([states.mask, torch.ones_like(positions, dtype=torch.bool)], 1)
    audio = audio.expand(len(prompts), -1, -1)
    if differ(expected, lm.logits(lm.read(audio, mask, positions, states.cache())), dtype):
        return "its logits in a batch and in parts differ from those of one pass"
    return None


def in_one_pass(lm: "CausalLM", **inputs: Tensor) -> Float[Tensor, "T V"]:
    """The LLM's own logits for one row of ids or embeddings."""
    batch = {name: row[None] for name, row in inputs.items()}
    return lm.llm(**batch, use_cache=False).logits[0].float()


def differ(expected: Float[Tensor, "*U V"], got: Float[Tensor, "*U V"], dtype: torch.dtype) -> bool:
    """Whether the difference is large compared with that between logits of different tokens."""
    return not change(expected, got) <= (EXACT if dtype == torch.float32 else ROUGH)


def change(expected: Float[Tensor, "*U V"], got: Float[Tensor, "*U V"]) -> float:
    """The difference, relative to that between logits of different tokens."""
    own = (expected - expected.mean(-1, keepdim=True)).norm()
    return float((got - expected).norm() / own.clamp(min=1e-6))


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
