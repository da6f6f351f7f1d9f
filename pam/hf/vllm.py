"""Write a trained model for vLLM: the merged LLM as a plain folder, and what makes its inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.atomic import write_json, write_text
from pam.config import load_yaml
from pam.data.longest import read_longest
from pam.hf import pam_inputs
from pam.hf.folder import generation, new_folder, write_model
from pam.hf.merging import merged_llm, refuse_kept_lora
from pam.hf.origins import origins, refuse_local
from pam.model.build import load_experiment
from pam.model.speech_llm import ESPnetPaMModel


def write_vllm(exp: Path, out: Path, bundle: bool) -> None:
    """Write exp/NAME to the new folder `out`: the merged LLM, pam_inputs.py, and pam/ for it.

    `bundle`: pam/ has the pretrained weights, too. `PamError` if LoRA cannot be merged.
    """
    config = load_yaml(exp / "config.yaml")
    if not bundle:
        refuse_local(origins(config))
    with new_folder(out) as folder:
        model = load_experiment(exp, online=True)
        refuse_kept_lora(model.llm, "vllm")
        write_llm(model, config, folder)
        (folder / "pam").mkdir()
        write_model(model, config, folder / "pam", bundle, read_longest(exp))


def write_llm(model: ESPnetPaMModel, config: Mapping[str, Any], folder: Path) -> None:
    """Write the merged LLM and its tokenizer, as transformers reads them, and pam_inputs.py."""
    llm = merged_llm(model.llm)
    llm.config.name_or_path = ""
    llm.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    write_json(folder / "generation_config.json", generation(model, config))
    text = Path(pam_inputs.__file__).read_text(encoding="utf-8")
    write_text(folder / "pam_inputs.py", text)
