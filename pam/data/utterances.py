"""The loader of utterances: prompts, references, and the model's input (audio or encoder states).

Training, validation, decoding and analysis all use it.
"""

# B batch, N samples, T frames, S hidden states and C width of an encoder

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pam.data.archive import load
from pam.data.audio import load_audio
from pam.data.choices import parse_choices
from pam.data.datadir import DataDir
from pam.data.mapped import MappedText
from pam.data.prompts import Prompts, draw
from pam.errors import PamError

AUDIO = "speech"  # key of the audio in a batch; states have their encoder's name
DUMP_AND_COMBINE = "run stages 2 and 3 with the same options"


@dataclass(frozen=True)
class Utterance:
    """One utterance.

    Attributes:
        samples: length at 16 kHz, None if unknown.
        cluster: utterances of one cluster (a speaker, a meeting, a clip) are not independent.
        choices: meaning of the letters of a multiple-choice prompt, else None.
        experts: tasks whose experts are right for the prompt, if there are several.
    """

    id: str
    task: str
    prompt: str
    prompt_seen: bool
    refs: tuple[str, ...]
    samples: int | None = None
    choices: Mapping[str, str] | None = None
    cluster: str | None = None
    experts: frozenset[str] = frozenset()


def read_utterances(
    data: DataDir, prompts: Mapping[str, Prompts], split: str, seed: int
) -> list[Utterance]:
    """The utterances of a directory in C order, each with its prompt.

    The prompt is the directory's fixed one, if there is one. Otherwise it is drawn from the `split`
    of the task's `prompts`. "\\n" in a fixed prompt is a line break, since an entry has one line.
    """
    fixed = data.files.get("prompt", {})
    samples = data.files.get("utt2num_samples", {})
    choices = data.files.get("choices", {})
    out = []
    for utt in data.utterances:
        task = data["utt2task"][utt]
        own = fixed.get(utt)
        prompt = own.replace(r"\n", "\n") if own else draw(prompts[task], utt, seed, split)
        refs = tuple(data[file][utt] for file in data.references if utt in data[file])
        seen = prompts[task].is_seen(prompt)
        experts = prompts[task].shared.get(prompt, frozenset())
        count = int(samples[utt]) if utt in samples else None
        letters = parse_choices(choices[utt]) if utt in choices else None
        cluster = data.cluster(utt)
        out.append(Utterance(utt, task, prompt, seen, refs, count, letters, cluster, experts))
    return out


@dataclass(frozen=True)
class Inputs:
    """The model's input for each utterance: audio, or dumped encoder states.

    Attributes:
        audio: the directory with the audio; None for states.
        states: of every encoder, utterance → pointer into an archive.
    """

    audio: DataDir | None
    states: Mapping[str, Mapping[str, str]]

    def __getitem__(self, utt: str) -> dict[str, Tensor]:
        """{"speech": [N]} at 16 kHz, or {encoder: [T, S·C]}; float32."""
        if self.audio is not None:
            return {AUDIO: torch.from_numpy(load_audio(*self.audio.audio(utt)))}
        return {
            encoder: torch.from_numpy(load(pointers[utt], utt)).float()
            for encoder, pointers in self.states.items()
        }


def read_inputs(
    folder: Path,
    encoders: Iterable[str],
    feats: str,
    utts: Collection[str],
    encoder_dir: Path | None = None,
) -> Inputs:
    """The inputs of the utterances `utts` of a directory; `feats`: "online" for audio.

    A combined directory holds feats_ENCODER.scp. For DUMP/raw/SET the features are in
    DUMP/ENCODER/SET. `PamError` if features of the directory or of an utterance are missing.
    """
    if feats == "online":
        files = [folder / name for name in ("wav.scp", "segments")]
        if not files[0].is_file():
            raise PamError(f"{files[0]}: missing: {DUMP_AND_COMBINE}")
        return Inputs(DataDir({f.name: MappedText(f) for f in files if f.is_file()}), {})
    states = {}
    for encoder in encoders:
        scp = inside = folder / f"feats_{encoder}.scp"
        if not inside.is_file():
            scp = (encoder_dir or folder.parent.parent) / encoder / folder.name / "feats.scp"
        if not scp.is_file():
            raise PamError(
                f"{scp}: no features of {encoder}; {inside}: missing: {DUMP_AND_COMBINE}"
            )
        states[encoder] = MappedText(scp)
        if missing := set(utts).difference(states[encoder]):
            raise PamError(
                f"{scp}: {len(missing)} utterances have no features, the first is {min(missing)}: "
                "remove feats.scp and run the dump stage again"
            )
    return Inputs(None, states)


def pad(rows: Sequence[Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A batch: for each name the sequences, zero-padded at the end, and their lengths."""
    padded = {name: pad_sequence([r[name] for r in rows], batch_first=True) for name in rows[0]}
    return padded, {name: torch.tensor([len(r[name]) for r in rows]) for name in rows[0]}


def batch_of(rows: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """The rows as the model takes them: NAME and NAME_lengths on its device."""
    features, lengths = pad(rows)
    batch = {**features, **{f"{name}_lengths": value for name, value in lengths.items()}}
    return {name: value.to(device) for name, value in batch.items()}
