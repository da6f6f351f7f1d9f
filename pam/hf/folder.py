"""Write a trained model as a folder that transformers loads without PaM."""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import (
    AddedToken,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Wav2Vec2FeatureExtractor,
    __version__,
)

from pam.atomic import atomic_folder, write_json, write_text
from pam.config import load_yaml
from pam.data.longest import read_longest
from pam.decode.settings import answer_limits
from pam.disk import writing
from pam.encoders import ENCODERS
from pam.errors import PamError
from pam.fusion import FUSIONS
from pam.hf.card import write_card
from pam.hf.merging import adapted_layers, keeps_lora, merged_llm
from pam.hf.modeling_pam import LORA
from pam.hf.origins import origins, refuse_local
from pam.hf.processing_pam import AUDIO_TOKEN, CHAT_TEMPLATE, DEFAULT_PROMPT
from pam.hf.travel import third_party, with_versions, write_code
from pam.lock import alone_at
from pam.model.build import load_experiment
from pam.model.speech_llm import ESPnetPaMModel
from pam.rate import SAMPLE_RATE

ROOTS = [f"pam.hf.{name}_pam" for name in ("configuration", "modeling", "processing")]
MODEL = "modeling_pam.PaMForConditionalGeneration"
AUTO_MAP = {
    "AutoConfig": "configuration_pam.PaMConfig",
    "AutoModel": MODEL,
    "AutoModelForCausalLM": MODEL,
    "AutoModelForMultimodalLM": MODEL,
    "AutoProcessor": "processing_pam.PaMProcessor",
}
READERS = {"soundfile", "soxr"}  # transformers imports them to read a file of audio
SHARD = "5GB"
ONE_FILE = 2**60  # bytes
# What a configuration of transformers says of this machine or of its version, and labels.
LOCAL = ("_name_or_path", "transformers_version", "id2label", "label2id", "auto_map")


def write_hf(
    exp: Path,
    out: Path,
    bundle: bool,
    licence: str,
    data_licences: Mapping[str, str] | None = None,
) -> None:
    """Write exp/NAME to the new folder `out`.

    `bundle`: with the pretrained weights, too. Otherwise they are named with their revisions.
    `data_licences`: set → licence, for the card.
    """
    config = load_yaml(exp / "config.yaml")
    found = origins(config)
    if not bundle:
        refuse_local(found)
    with new_folder(out) as folder:
        model = load_experiment(exp, online=True)
        modules = write_model(model, config, folder, bundle, read_longest(exp))
        libraries = with_versions({*third_party(modules), *READERS})
        write_card(exp, folder, found, licence, libraries, data_licences or {})


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which gets the name `out` when it is complete."""
    with alone_at(out, "export"):
        if out.exists():
            raise PamError(f"{out}: it exists: remove it, or choose another folder")
        with writing(out), atomic_folder(out) as part:
            yield part
            for file in filter(Path.is_file, part.rglob("*")):
                file.chmod(part.stat().st_mode & 0o666)  # safetensors: for their owner alone


def write_model(
    model: ESPnetPaMModel,
    config: Mapping[str, Any],
    folder: Path,
    bundle: bool,
    longest: float | None = None,
) -> list[str]:
    """Write weights, configuration, processor and code of a model with its encoders.

    Returns the modules of pam that were written.
    """
    tokenizer = copy.deepcopy(model.tokenizer)
    token = AddedToken(AUDIO_TOKEN, special=True, normalized=False)
    tokenizer.add_tokens([token], special_tokens=True)
    described = describe(model, config, bundle, tokenizer.convert_tokens_to_ids(AUDIO_TOKEN))
    write_json(folder / "config.json", described | {"longest_seconds": longest})
    write_processor(tokenizer, folder)
    write_json(folder / "generation_config.json", generation(model, config))
    shards = SHARD if bundle else ONE_FILE
    save_torch_state_dict(weights(model, bundle), folder, max_shard_size=shards)
    return write_code(folder, ROOTS, parts(described))


def describe(
    model: ESPnetPaMModel, config: Mapping[str, Any], bundle: bool, audio_token_id: int
) -> dict[str, Any]:
    """The content of config.json (`PaMConfig`)."""
    lm, found = model.llm, origins(config)
    encoders = [
        encoder_of(model, name, spec) | found[f"encoders.{name}"]
        for name, spec in config["encoders"].items()
    ]
    return {
        "model_type": "pam",
        "transformers_version": __version__,
        "architectures": ["PaMForConditionalGeneration"],
        "auto_map": AUTO_MAP,
        "dtype": type_name(lm.embeddings.dtype),
        "text_config": plain(lm.llm.config),
        "encoders": encoders,
        "llm": found["llm"],
        "bundled": bundle,
        "width": lm.width,
        "fusion": config["fusion"],
        "fusion_conf": config["fusion_conf"],
        "router_conf": config["router_conf"],
        "experts": model.experts,
        "embedding_norm": None if model.gain is None else model.embedding_norm,
        "bf16": model.bf16,
        "h_prompt": lm.h_prompt,
        "opening": list(lm.template.opening),
        "closing": list(lm.template.closing),
        "end": lm.template.end,
        "control_tokens": sorted({*lm.text_ids.control, audio_token_id}),
        "audio_token_id": audio_token_id,
        "lora": lora_of(model) if keeps_lora(lm) else None,
    }


def encoder_of(model: ESPnetPaMModel, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What `pam.hf.audio_encoder.shape_of` needs to make the encoder without its weights."""
    if not isinstance(getattr(model.encoders[name], "model", None), PreTrainedModel):
        raise PamError(
            f"encoders.{name}: a {spec['family']} cannot be exported: let its `model` come from "
            "pam.encoders.loading.load_pretrained"
        )
    encoder, conf = model.encoders[name], dict(spec.get("conf") or {})
    if hasattr(encoder, "normalize"):  # found in a file of the checkpoint
        conf["normalize"] = encoder.normalize
    shape = {"dim": encoder.dim, "num_states": encoder.num_states}
    config = plain(encoder.model.config)
    return {"name": name, "family": spec["family"], "conf": conf, **shape, "config": config}


def lora_of(model: ESPnetPaMModel) -> dict[str, Any]:
    layers = adapted_layers(model.llm)
    one = next(iter(layers.values()))
    return {"rank": one.r["default"], "alpha": one.lora_alpha["default"], "targets": [*layers]}


def plain(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration of transformers without what only this machine knows."""
    kept = {key: value for key, value in config.to_dict().items() if key not in LOCAL}
    return json.loads(json.dumps(kept, default=str))


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def parts(described: Mapping[str, Any]) -> set[str]:
    """The entries of registries that a model needs."""
    used = {ENCODERS.entries[spec["family"]] for spec in described["encoders"]}
    used.add(FUSIONS.entries[described["fusion"]])
    return used | set(LORA.entries.values() if described["lora"] else ())


def weights(model: ESPnetPaMModel, bundle: bool) -> dict[str, Tensor]:
    """All weights of the folder, by their names in `PaMForConditionalGeneration`."""
    state = {f"audio_encoder.fusion.{k}": v for k, v in model.fusion.state_dict().items()}
    if model.gain is not None:
        state["audio_encoder.gain"] = model.gain
    if model.router is not None:
        state |= {f"router.{k}": v for k, v in model.router.state_dict().items()}
    if bundle:
        encoders = model.encoders.state_dict()
        state |= {f"audio_encoder.encoders.{k}": v for k, v in encoders.items()}
    state |= {f"language_model.{k}": v for k, v in llm_weights(model, bundle).items()}
    return apart(state)


def llm_weights(model: ESPnetPaMModel, bundle: bool) -> dict[str, Tensor]:
    """Those of the LLM; without `bundle`, those that differ from the pretrained ones."""
    lm = model.llm
    llm = lm.llm if keeps_lora(lm) else merged_llm(lm)
    state, tied = llm.state_dict(), getattr(llm, "all_tied_weights_keys", None) or {}
    if bundle:
        return {name: value for name, value in state.items() if name not in tied}
    learned = {f"{name}.weight" for name in adapted_layers(lm)}
    return {name: value for name, value in state.items() if name in learned or ".lora_" in name}


def apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, none of which shares memory with another, as safetensors needs."""
    seen, out = set(), {}
    for name, value in state.items():
        own = value.detach().cpu().contiguous()
        out[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return out


def write_processor(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=SAMPLE_RATE,
        padding_value=0.0,
        do_normalize=False,
        return_attention_mask=True,
    ).save_pretrained(folder)
    write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)  # in place of the LLM's own
    auto_map = {"AutoProcessor": AUTO_MAP["AutoProcessor"]}
    words = {"audio_token": AUDIO_TOKEN, "default_prompt": DEFAULT_PROMPT}
    kind = {"processor_class": "PaMProcessor", "auto_map": auto_map}
    write_json(folder / "processor_config.json", kind | words)


def generation(model: ESPnetPaMModel, config: Mapping[str, Any]) -> dict[str, Any]:
    """Greedy search, as in `pam.decode`. A padding token may be one that the LLM does not have."""
    end = model.llm.eos
    limits = answer_limits(config)
    del limits["max_tokens_per_second"]  # transformers knows no limit by the length of audio
    limits = {name: limit for name, limit in limits.items() if limit}
    return {"eos_token_id": end, "pad_token_id": end, "do_sample": False} | limits
