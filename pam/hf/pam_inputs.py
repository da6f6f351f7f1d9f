"""Inputs of vLLM for a prompt about a recording: embeddings of prompt, audio and closing.

This file lies beside the merged LLM that vLLM serves, and makes its inputs with the model in the
folder pam/ beside it. That model's router reads the prompt and chooses the expert.

    from vllm import LLM, SamplingParams
    from pam_inputs import PaMInputs

    inputs = PaMInputs()(["a.wav", "b.wav"], "Transcribe this recording.")
    llm = LLM(model=".", enable_prompt_embeds=True)
    outputs = llm.generate(inputs, SamplingParams(temperature=0, max_tokens=256))
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForMultimodalLM, AutoProcessor

FOLDER = Path(__file__).resolve().parent / "pam"


class PaMInputs:
    """Makes `EmbedsPrompt` inputs with the model in `folder`, on `device`."""

    def __init__(self, folder: str | Path = FOLDER, device: str = "cpu"):
        self.processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        model = AutoModelForMultimodalLM.from_pretrained(folder, trust_remote_code=True)
        self.model = model.to(device).eval()
        self.device = device

    def __call__(self, audio: Any, prompts: str | Sequence[str]) -> list[dict[str, Any]]:
        """One input for each recording (samples at 16 kHz, or a path): `prompt_embeds` [T, D] and
        `prompt_token_ids`. One prompt serves for all recordings."""
        inputs = self.processor(text=prompts, audio=audio)
        return self.model.embeds_prompts(**inputs.to(self.device))
