"""Fusions: from the states of all encoders to one feature sequence for the LLM.

The contract (`pam.fusion.base.Fusion`). A fusion is built with the widths and state counts of the
encoders and is called with

- `states`: one tensor [B, S_e, T, D_e] per encoder (S_e = L_e + 1 hidden states), all of one T at
  25 frames a second, zero beyond each clip's length;
- `lengths`: [B], the real frames of each clip, 1 to T: no feature of a clip may depend on what
  lies beyond them;
- `gate`: what the fusion takes of the prompt. [B, R], the weight of each routed expert (equation
  9), of the fusions that need a prompt router. [B, D], h_prompt (equation 7), of those that read
  the prompt themselves (`reads_prompt`); None where no prompt is read (the CTC warm-up). None of
  all others.

It returns [B, U, D]: D is the width of the LLM, U = output_lengths(T). `output_lengths(lengths)`
gives the number of real features of each clip; no other code computes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pam.fusion.base import Fusion
from pam.fusion.extend import extend_fusion
from pam.options import check_init_options
from pam.registry import Registry

FUSIONS = Registry(
    "fusion",
    {
        "single": "pam.fusion.single:Single",
        "average": "pam.fusion.average:Average",
        "concat": "pam.fusion.concat:Concat",
        "wavllm": "pam.fusion.wavllm:WavLLM",
        "salmonn": "pam.fusion.salmonn:Salmonn",
        "pam": "pam.fusion.pam:PromptAwareMixture",
        "moe_audio": "pam.fusion.moe_audio:AudioRoutedMixture",
        "single_all_layers": "pam.fusion.single_all_layers:SingleAllLayers",
        "concat_all_layers": "pam.fusion.concat_all_layers:ConcatAllLayers",
        "concat_norm_layers": "pam.fusion.concat_norm_layers:ConcatNormLayers",
        "transformer": "pam.fusion.transformer:EncoderTransformer",
        "prompt_mixture": "pam.fusion.prompt_mixture:PromptMixture",
    },
)


def build_fusion(
    name: str,
    dims: Sequence[int],
    states: Sequence[int],
    width: int,
    num_experts: int,
    conf: Mapping[str, Any],
) -> Fusion:
    """The fusion called `name` for encoders of widths `dims` with `states` hidden states each.

    `width` is D, `num_experts` is R (one per task); `conf` holds the fusion's own options, and
    `extended`: the number of encoders that were added after the first training
    (`pam.fusion.extend`).
    """
    cls = FUSIONS.get(name)
    options = {key: value for key, value in conf.items() if key != "extended"}
    check_init_options(cls, options, f"fusion_conf of {name!r}")
    fusion = cls(dims=dims, states=states, width=width, num_experts=num_experts, **options)
    if conf.get("extended"):
        extend_fusion(fusion, len(dims), width, conf["extended"])
    return fusion
