"""Write what was learned: LoRA as PEFT reads it, and the other learned weights beside it."""

import shutil
from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from pam.atomic import write_text
from pam.config import load_yaml
from pam.errors import PamError
from pam.hf.folder import apart, new_folder
from pam.hf.merging import adapted_layers, keeps_lora
from pam.hf.origins import origins
from pam.llm.causal_lm import CausalLM
from pam.llm.template import FILE
from pam.model.build import load_experiment

PEFT = "base_model.model."  # PEFT's prefix of all names
README = """\
# LoRA and fusion of {name}

- `adapter_config.json`, `adapter_model.safetensors`: LoRA of {llm}, for `peft.PeftModel`{where}.
- `fusion.safetensors`: the other learned weights, by their names in PaM.
- `config.yaml`{template}: the experiment's configuration.

The adapted LLM needs the fused audio after the prompt: these files are for PaM and for programs
that do the same. `pam.bin.export --to hf` writes a model that needs no PaM.
"""


def write_adapter(exp: Path, out: Path) -> None:
    """Write exp/NAME to the new folder `out`. `PamError` for a system without LoRA."""
    config = load_yaml(exp / "config.yaml")
    with new_folder(out) as folder:
        model = load_experiment(exp)
        if not adapted_layers(model.llm):
            raise PamError(f"--to lora: {exp} has no LoRA (llm_conf.lora_rank: 0): use --to hf")
        where = origins(config)["llm"]
        hub = where["path"] if where["revision"] else None
        write_peft(model.llm, folder, hub, where["revision"])
        learned = {k: v for k, v in model.state_dict().items() if not k.startswith("llm.")}
        save_file(apart(learned), folder / "fusion.safetensors", {"format": "pt"})
        kept = [name for name in ("config.yaml", FILE) if (exp / name).is_file()]
        for name in kept:
            shutil.copyfile(exp / name, folder / name)
        note = ", to be off while the prompt is read" if keeps_lora(model.llm) else ""
        words = {"name": exp.resolve().name, "llm": where["path"], "where": note}
        template = f", `{FILE}`" if FILE in kept else ""
        write_text(folder / "README.md", README.format(**words, template=template))


def write_peft(lm: CausalLM, folder: Path, hub: str | None, revision: str | None) -> None:
    """Write PEFT's files for the LoRA of `lm`."""
    layers = adapted_layers(lm)
    one = next(iter(layers.values()))
    LoraConfig(
        r=one.r["default"],
        lora_alpha=one.lora_alpha["default"],
        target_modules=list(layers),
        task_type="CAUSAL_LM",
        base_model_name_or_path=hub,
        revision=revision,
        inference_mode=True,
    ).save_pretrained(folder)
    save_file(apart(peft_weights(lm)), folder / "adapter_model.safetensors", {"format": "pt"})


def peft_weights(lm: CausalLM) -> dict[str, Tensor]:
    """LoRA's matrices by the names of PEFT's files."""
    return {
        PEFT + name.replace(".default.", "."): value
        for name, value in lm.llm.state_dict().items()
        if ".lora_" in name
    }
