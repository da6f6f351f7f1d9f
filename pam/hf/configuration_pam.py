"""The configuration of an exported model: its parts, their shapes, and the tokens of a prompt."""

import transformers

try:
    from transformers import AutoConfig, PreTrainedConfig
    from transformers.configuration_utils import SubConfigSpec
except ImportError as error:
    raise ImportError(
        f"this model's code does not work with transformers {transformers.__version__} ({error}): "
        "install the version that its config.json names (transformers_version)"
    ) from error


class PaMConfig(PreTrainedConfig):
    """What `pam.hf.export` writes to config.json.

    Attributes:
        text_config: that of the LLM.
        encoders: one mapping for each encoder, in the fusion's order: name, family, conf, dim,
            num_states, config (of its model), path and revision (of its pretrained weights).
        llm: path and revision of the LLM's pretrained weights.
        bundled: whether the folder has the pretrained weights too.
        width: D, the width of the LLM.
        fusion, fusion_conf, router_conf: the names and options of the experiment.
        experts: names of the routed experts; their ids are the places in this list.
        embedding_norm: the norm that features are scaled to; None: features are not scaled.
        bf16: whether arithmetic is in bfloat16 (autocast), as in the experiment.
        h_prompt: "last" or "mean" (equation 7).
        opening, closing: token ids before the prompt, and between audio and answer.
        end: the token that ends an answer.
        control_tokens: ids that no text of a user may produce.
        audio_token_id: the placeholder of one audio feature.
        lora: rank, alpha and targets of a LoRA that stays beside the LLM, because it acts after
            the prompt only; None: LoRA is merged, or there is none.
        longest_seconds: the longest clip of the training; None if unknown.
    """

    model_type = "pam"
    sub_configs_defaults = {"text_config": SubConfigSpec(AutoConfig, model_type="llama")}

    text_config: dict | PreTrainedConfig | None = None
    encoders: list | None = None
    llm: dict | None = None
    bundled: bool = True
    width: int = 0
    fusion: str = ""
    fusion_conf: dict | None = None
    router_conf: dict | None = None
    experts: list | None = None
    embedding_norm: float | None = None
    bf16: bool = False
    h_prompt: str = "last"
    opening: list | None = None
    closing: list | None = None
    end: int = 0
    control_tokens: list | None = None
    audio_token_id: int = 0
    lora: dict | None = None
    longest_seconds: float | None = None
