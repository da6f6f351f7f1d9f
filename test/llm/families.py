"""A tiny random LLM of every family that transformers offers as a causal LLM."""

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

# Not made here, and why.
NOT_TINY = {
    "blt": "its patcher is a model of its own",
    "cohere_compass_text": "transformers' own defaults do not make a model",
    "dbrx": "transformers' own defaults do not make a model",
    "emu3": "a multimodal model whose text model is not offered",
    "gemma3n": "its text model is gemma3n_text",
    "gemma4_assistant": "drafts for another LLM",
    "gemma4_unified_assistant": "drafts for another LLM",
    "git": "its vision encoder is large",
    "mllama": "a multimodal model whose text model is not offered",
    "musicgen": "a multimodal model whose text model is not offered",
    "musicgen_melody": "a multimodal model whose text model is not offered",
    "phi4_multimodal": "its vision and audio encoders are large",
    "reformer": "its positions factorise its width",
}
FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - NOT_TINY.keys())

# What sets a size in some family's configuration. Windows and chunks are shorter than the texts.
SMALL = {
    32: "hidden_size d_model n_embd embedding_size word_embed_proj_dim dim emb_dim",
    64: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner ffn_hidden_size dff "
    "d_ff",
    1: "encoder_layers n_group topk_group n_shared_experts mamba_n_groups n_groups",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers "
    "num_key_value_heads num_kv_heads num_experts_per_tok moe_k moe_topk top_k_experts "
    "linear_num_key_heads",
    4: "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads "
    "num_experts num_local_experts n_routed_experts moe_num_experts linear_num_value_heads",
    6: "sliding_window attention_chunk_size sliding_window_size window_size local_attention",
    8: "head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim rotary_dim linear_key_head_dim "
    "linear_value_head_dim state_size hidden_size_per_layer_input index_head_dim",
    16: "moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank "
    "qk_head_dim",
    128: "max_position_embeddings n_positions n_ctx max_seq_len",
    300: "vocab_size vocab_size_per_layer_input",
    0: "pad_token_id bos_token_id eos_token_id decoder_start_token_id max_window_layers",
}
SIZES = {name: value for value, names in SMALL.items() for name in names.split()}
SIZES |= {"use_sliding_window": True, "is_decoder": True}
# What stands between embeddings, states and logits, strong enough to show.
SIZES |= {"logit_scale": 0.3, "logits_scaling": 8.0, "final_logit_softcapping": 0.5}
SIZES |= {"embedding_multiplier": 3.0}

LATENT = "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash"
OWN = {name: {"num_key_value_heads": 4} for name in f"{LATENT} minicpm3 youtu".split()}
OWN["longcat_flash"] |= {"zero_expert_num": 0, "expert_ffn_hidden_size": 16}
OWN |= {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16},
    "bloom": {"hidden_dropout": 0.5},
    "falcon": {"head_dim": None, "alibi": True},
    "gemma3n_text": {"num_hidden_layers": 2, "num_kv_shared_layers": 0},
    "dots1": {"n_shared_experts": 1, "topk_group": 1, "n_group": 1, "max_window_layers": 2},
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16, "layer_types": ["mamba"] * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"layer_types": ["chunked_attention", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "prophetnet": {"num_hidden_layers": None},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layer_types": ["mamba", "hybrid"] * 2},
    "zamba2": {"layer_types": ["mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_of(family: str, **more) -> PreTrainedModel:
    """A random LLM of two layers; its weights are scaled up so that details show."""
    kind = CONFIG_MAPPING[family]
    kind = type(kind().get_text_config(decoder=True))
    known = kind().to_dict().keys()
    options = {k: v for k, v in SIZES.items() if k in known} | OWN.get(family, {}) | more
    config = kind(**{k: v for k, v in options.items() if v is not None})
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in llm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return llm
