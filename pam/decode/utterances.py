"""What is to be decoded: utterances with their prompts and references, in batches of one length."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pam.data.archive import read_scp
from pam.data.choices import parse_choices
from pam.data.datadir import DataDir
from pam.data.prompts import Prompts, draw
from pam.errors import UserError


@dataclass(frozen=True)
class Utterance:
    """One utterance; `samples` (at 16 kHz) is None where the directory does not say.

    `choices` is what the letters of its prompt stand for, None where it has none; utterances of one
    `cluster` (a speaker, a meeting, a clip) are not independent. `experts` are the tasks whose
    experts are right for its prompt, where that is not its own task's alone.
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
    data: DataDir, prompts: Mapping[str, Prompts], pool: str, seed: int
) -> list[Utterance]:
    """The utterances of a directory in C order, each with its prompt.

    A fixed prompt of the directory wins over one drawn from the `pool` of its task's `prompts`;
    "\\n" in it is a line break, for tables have one line an entry.
    """
    fixed = data.tables.get("prompt", {})
    samples = data.tables.get("utt2num_samples", {})
    choices = data.tables.get("choices", {})
    out = []
    for utt in data.utterances:
        task = data["utt2task"][utt]
        own = fixed.get(utt)
        prompt = own.replace(r"\n", "\n") if own else draw(prompts[task], utt, seed, pool)
        refs = tuple(data[file][utt] for file in data.references if utt in data[file])
        seen = prompts[task].is_seen(prompt)
        experts = prompts[task].shared.get(prompt, frozenset())
        count = int(samples[utt]) if utt in samples else None
        letters = parse_choices(choices[utt]) if utt in choices else None
        cluster = data.cluster(utt)
        out.append(Utterance(utt, task, prompt, seen, refs, count, letters, cluster, experts))
    return out


def batches(utterances: Sequence[Utterance], size: int) -> Iterator[list[Utterance]]:
    """Batches of similar length, the longest first: what does not fit fails at once."""
    if size < 1:
        raise UserError(f"batch_size {size}: must be at least 1")
    ordered = sorted(utterances, key=lambda utterance: -(utterance.samples or 0))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def feature_tables(
    data_dir: Path, data: DataDir, encoders: Iterable[str], encoder_dir: Path | None
) -> dict[str, dict[str, str]]:
    """For every encoder the archive pointers of all utterances.

    A combined directory holds feats_ENCODER.scp; for DUMP/raw/SET they are in DUMP/ENCODER/SET.
    """
    root = encoder_dir or data_dir.parent.parent
    tables = {}
    for encoder in encoders:
        inside = f"feats_{encoder}.scp"
        scp = root / encoder / data_dir.name / "feats.scp"
        if inside not in data and not scp.is_file():
            raise UserError(f"{scp}: no features of {encoder}: run the recipe's dump stage")
        tables[encoder] = data[inside] if inside in data else read_scp(scp)
        if missing := data["text"].keys() - tables[encoder].keys():
            raise UserError(
                f"{scp}: {len(missing)} utterances have no features, the first is {min(missing)}: "
                "remove feats.scp and run the dump stage again"
            )
    return tables
