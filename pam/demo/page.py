"""The page: a recording and a prompt on the left, one column for each system on the right."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import gradio as gr
import numpy as np

from pam.analysis.plots.weights import plot_weights
from pam.data.prompts import load_all_prompts
from pam.decode.answer import Answer
from pam.decode.api import SpeechLLM
from pam.decode.settings import NO_SPEECH, REPEATED
from pam.demo.examples import Example
from pam.errors import PamError

TITLE = "PaM: prompt-aware mixture of audio encoders"
TOP_EXPERTS = 5
# The theme's own fonts would be fetched from another host.
THEME = {"font": ["sans-serif"], "font_mono": ["monospace"]}


class System:
    """One trained system on the page; figures go to `folder`."""

    def __init__(self, name: str, llm: SpeechLLM, folder: Path):
        self.name, self.llm, self.folder = name, llm, folder
        self.heat_map = cache(self._heat_map)

    def answer(
        self, audio: str | None, prompt: str
    ) -> tuple[str, str, dict[str, float], str | None]:
        """What the page shows: text, notes, posteriors, and the file of the heat map.

        Raises `gr.Error` with the words of a `PamError`.
        """
        if audio is None:
            raise gr.Error("Record or upload audio first.")
        try:
            answer = self.llm.generate(audio, prompt, name=Path(audio).name)
        except PamError as error:
            raise gr.Error(str(error)) from error
        heat_map = self.heat_map(answer.expert) if answer.expert is not None else None
        return answer.text, notes(answer), answer.posteriors, heat_map

    def _heat_map(self, expert: str) -> str | None:
        """A figure of an expert's layer weights, a row for each fused feature; None without."""
        weights = self.llm.layer_weights(expert)
        if not weights:
            return None
        encoders = {name: {"num_states": part.shape[1]} for name, part in weights.items()}
        joined_MS = np.concatenate(list(weights.values()), axis=1)
        rows = {f"g{m}": joined_MS[m - 1 : m] for m in range(1, len(joined_MS) + 1)}
        file = self.folder / f"{self.name}-{self.llm.model.experts.index(expert)}.png"
        return str(plot_weights(rows, encoders, file))


def notes(answer: Answer) -> str:
    """Time, and what is doubtful about an answer."""
    found = [f"{answer.seconds:.1f} s of audio answered in {answer.wall_seconds:.1f} s"]
    if answer.expert is not None:
        found.insert(0, f"expert: {answer.expert}")
    if answer.pieces:
        found.append(f"cut into {len(answer.pieces)} pieces")
    if answer.no_speech >= NO_SPEECH:
        found.append("no speech: the answer may be invented")
    if answer.repetition >= REPEATED:
        found.append("the answer repeats itself")
    return "; ".join(found)


def suggestions(tasks: Sequence[str]) -> list[str]:
    """Prompts to choose from: for each task a short request and two that training never saw."""
    found = []
    for prompts in load_all_prompts(tasks).values():
        found += [*prompts.plain[:1], *prompts.unseen[:2]]
    return list(dict.fromkeys(found))


def make_page(
    models: Mapping[str, SpeechLLM], folder: Path, examples: Sequence[Example] = ()
) -> gr.Blocks:
    """The page for one or more systems, by name."""
    systems = [System(name, llm, folder) for name, llm in models.items()]
    prompts = suggestions(next(iter(models.values())).model.tasks)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\nThe prompt decides which expert fuses the layers of the encoders.")
        with gr.Row():
            with gr.Column():
                audio = gr.Audio(
                    label="Audio", sources=["upload", "microphone"], type="filepath", buttons=[]
                )
                prompt = gr.Dropdown(
                    prompts, value=prompts[0], label="Prompt", allow_custom_value=True,
                    info="choose one, or write your own", elem_id="prompt",
                )  # fmt: skip
                ask = gr.Button("Ask", variant="primary", elem_id="ask")
                if examples:
                    rows = [[example.audio, example.prompt] for example in examples]
                    labels = [example.label for example in examples]
                    gr.Examples(rows, [audio, prompt], example_labels=labels)
            for number, system in enumerate(systems):
                with gr.Column():
                    outputs = column(system, number)
                ask.click(system.answer, [audio, prompt], outputs, api_name=f"ask_{number}")
    return page


def column(system: System, number: int) -> list[gr.components.Component]:
    """The outputs of a system."""
    gr.Markdown(f"### {system.name}")
    return [
        gr.Textbox(label="Answer", lines=3, elem_id=f"answer_{number}"),
        gr.Textbox(label="Notes", elem_id=f"notes_{number}"),
        gr.Label(label="Experts", num_top_classes=TOP_EXPERTS, elem_id=f"experts_{number}"),
        gr.Image(label="Layer weights", show_label=False, buttons=[], elem_id=f"weights_{number}"),
    ]
