"""Import a corpus as a data directory: of lhotse, of Hugging Face (on disk), or of WebDataset.

pam import recordings.jsonl.gz supervisions.jsonl.gz --out data/my_train --task asr_clean
pam import FOLDER --split train --text_column sentence --out data/my_train --task asr_clean
pam import train-000000.tar train-000001.tar --out data/my_train --task asr_clean
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from pam.bin.validate import DEFAULT_AUDIO, examine
from pam.data.importing import FORMS, Item, LeftOut, chosen_split, to_data_dir
from pam.data.tasks import get_task
from pam.errors import PamError, run_main
from pam.lock import alone_at

MANIFESTS = (".jsonl", ".jsonl.gz")
OPTIONS = {  # those that only some forms have
    "manifests of lhotse": ("channel", "audio_root"),
    "tar shards": ("split", "text_column", "audio_column", "speaker_column"),
    "a data set of Hugging Face": (
        "split", "text_column", "audio_column", "speaker_column", "id_column"
    ),
}  # fmt: skip
NUMBER = re.compile(r"[-_.]?\d+$")  # of a shard of a set


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, nargs="+",
        help="recordings and supervisions, or cuts (.jsonl.gz); a folder of a data set of Hugging "
        "Face; tar shards, or their folder",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the data directory, data/SET")
    parser.add_argument("--task", required=True, help="of all utterances: asr_clean …")
    parser.add_argument("--prefix", default="", help="of all ids")
    parser.add_argument(
        "--split", help="of a Hugging Face data set, or of a folder of tar shards, with several"
    )
    parser.add_argument(
        "--text_column", help="the answer (default: text; in shards also the member txt)"
    )
    parser.add_argument(
        "--audio_column", help="the audio (default: audio); in shards the suffix of its member"
    )
    parser.add_argument("--speaker_column", help="the speaker (default: none; in shards: speaker)")
    parser.add_argument("--id_column", help="ids of a Hugging Face data set (default: row numbers)")
    parser.add_argument("--channel", type=int, help="of lhotse's utterances with several channels")
    parser.add_argument(
        "--audio_root", type=Path, help="folder of lhotse's relative paths (default: this one)"
    )
    return parser


@contextmanager
def found(args: argparse.Namespace) -> Iterator[Iterable[Item | LeftOut]]:
    """Context with the utterances of the sources, whose names tell their form."""
    first = args.source[0]
    for source in args.source:
        if not source.exists():
            raise PamError(f"{source}: no such file or folder: {FORMS}")
    if all(source.name.endswith(MANIFESTS) for source in args.source):
        from pam.data.lhotse import read_manifests

        refuse_others(args, "manifests of lhotse")
        yield read_manifests(args.source, args.channel, args.audio_root or Path(), args.out)
    elif shards := [shard for source in args.source for shard in _shards(source, args.split)]:
        from pam.data.samples import read_samples

        refuse_others(args, "tar shards")
        yield read_samples(shards, args.text_column, args.audio_column, args.speaker_column)
    elif len(args.source) == 1 and first.is_dir():
        from pam.data.hub import Columns, files_of_split, reading_rows

        refuse_others(args, "a data set of Hugging Face")
        split, files = files_of_split(first, args.split)
        text, audio = args.text_column or "text", args.audio_column or "audio"
        columns = Columns(text, audio, args.speaker_column, args.id_column)
        with reading_rows(files, split, columns, args.out) as rows:
            yield rows
    else:
        raise PamError(f"{first}: unknown form of a corpus: {FORMS}")


def refuse_others(args: argparse.Namespace, form: str) -> None:
    """`PamError` for an option that has no effect on sources of this form."""
    for option in sorted({*chain(*OPTIONS.values())} - {*OPTIONS[form]}):
        if getattr(args, option) is not None:
            raise PamError(f"{args.source[0]}: --{option} has no effect on {form}: leave it out")


def _shards(source: Path, split: str | None) -> list[Path]:
    """The shard `source`, or those of a folder. `PamError` if they are of several sets, by their
    names without numbers, and `split` names none of them."""
    found = sorted(source.glob("*.tar")) if source.is_dir() else [source]
    splits: dict[str, list[Path]] = {}
    for shard in found:
        if shard.suffix == ".tar":
            splits.setdefault(NUMBER.sub("", shard.stem), []).append(shard)
    return splits[chosen_split(source, split, list(splits))] if splits else []


def main(argv: list[str] | None = None) -> int:
    """python -m pam.bin.import SOURCE… --out data/SET --task TASK; the result is validated."""
    args = get_parser().parse_args(argv)
    task = get_task(args.task).name
    with alone_at(args.out, "import"), found(args) as utterances:
        to_data_dir(utterances, args.out, task, args.prefix)
    return 0 if examine(args.out, DEFAULT_AUDIO, every=False) else 1


if __name__ == "__main__":
    run_main(main)
