#!/usr/bin/env python3
"""Make data directories of AMI's headset recordings (IHM): ami_train, ami_dev, ami_test.

    python local/prepare.py --corpus AMI --out data [--size tiny|short|long] [--sets ami_train …]
    python local/prepare.py --parquet FOLDER --out data

The source is the corpus itself (NXT annotations and recordings: wav.scp names recordings, segments
cuts them) or a copy of the Hugging Face data set (a file for each utterance). Sets are those of the
corpus' partition full-corpus-asr (meetings.tsv), texts are lower case. `short` and `tiny` take an
even sample of a set. Utterances that are left out are counted and named.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam, installed or not

import ami_nxt  # noqa: E402
import ami_parquet  # noqa: E402
from ami_utterances import (  # noqa: E402
    LATE,
    NO_AUDIO,
    PUBLISHED,
    Utterance,
    meetings_of_sets,
    overlapping,
    unique,
)

from pam.data.audio import MAX_OVERSHOOT_SECONDS, num_samples  # noqa: E402
from pam.data.corpus import (  # noqa: E402
    even_sample,
    even_sample_of_usable,
    list_left_out,
    report_count,
    report_left_out,
)
from pam.data.datadir import DataDir  # noqa: E402
from pam.data.search import find_files  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.log import get_logger  # noqa: E402
from pam.rate import SAMPLE_RATE  # noqa: E402

TASK = "asr_noisy"
# Utterances of the training set and of others; None: all.
SIZES = {"tiny": (40, 8), "short": (3000, 200), "long": (None, None)}
Faults = dict[str, list[str]]
Files = dict[str, dict[str, str]]
logger = get_logger("prepare")


def from_corpus(corpus: Path, out: Path, size: str, sets: Sequence[str]) -> None:
    annotations = ami_nxt.annotations_in(corpus)
    speakers = ami_nxt.read_speakers(annotations)
    recordings = find_recordings(corpus)
    partition = meetings_of_sets()
    for name in sets:
        meetings, faults = partition[name], defaultdict(list)
        read, absent = [], []
        for meeting in meetings:
            found = list(ami_nxt.read_meeting(annotations, meeting, speakers, faults))
            read += found
            absent += [] if found else [meeting]
        if absent:
            logger.warning(
                "ami_%s: %d meetings expected, %d without any segment: %s", name,
                len(meetings), len(absent), " ".join(absent),
            )  # fmt: skip
        utterances = unique(read, faults)
        report_recordings(name, utterances, recordings)
        utterances = with_audio(utterances, recordings, faults)
        report(name, utterances, faults, out)
        chosen = even_sample(utterances, SIZES[size][name != "train"])
        texts = common_files(chosen) | {
            "segments": {u.id: f"{u.recording} {u.start:.2f} {u.end:.2f}" for u in chosen},
            "wav.scp": {u.recording: recordings[u.recording] for u in chosen},
        }
        DataDir(texts).write(out / f"ami_{name}")
        count = len(texts["text"])
        logger.info("ami_%s: %d of %d utterances", name, count, len(utterances))


def find_recordings(corpus: Path) -> dict[str, str]:
    """AMI_MEETING_H0N → path of MEETING.Headset-N.wav, at any depth, also behind links."""
    found = {}
    for file in find_files(corpus.absolute(), "*.Headset-[0-9].wav"):
        meeting, headset, _ = file.name.rsplit(".", 2)
        found[f"AMI_{meeting}_H{int(headset[-1]):02d}"] = str(file)
    return found


def report_recordings(
    name: str, utterances: Sequence[Utterance], recordings: dict[str, str]
) -> None:
    """Name the recordings that a set lacks."""
    files = {u.recording_file for u in utterances if u.recording not in recordings}
    if files:
        logger.warning(
            "ami_%s: %d recordings are missing: %s", name, len(files), " ".join(sorted(files))
        )


def with_audio(
    utterances: Sequence[Utterance], recordings: dict[str, str], faults: Faults
) -> list[Utterance]:
    """Those that lie in a recording."""
    ends = {}
    for recording in {u.recording for u in utterances} & recordings.keys():
        try:
            ends[recording] = num_samples(recordings[recording]) / SAMPLE_RATE
        except PamError as error:
            logger.warning("%s", error)
    kept = []
    for utterance in utterances:
        if utterance.recording not in ends:
            faults[NO_AUDIO].append(f"{utterance.id} (in {utterance.recording_file})")
        elif utterance.end > ends[utterance.recording] + MAX_OVERSHOOT_SECONDS:
            faults[LATE].append(utterance.id)
        else:
            kept.append(utterance)
    return kept


def from_parquet(folder: Path, out: Path, size: str, sets: Sequence[str]) -> None:
    files = ami_parquet.files_in(folder)
    for name in sets:
        if name not in files:
            raise PamError(f"{folder}: no files of the set {name}: fetch all of the data set")
        faults: Faults = defaultdict(list)
        rows = list(ami_parquet.read_rows(files[name], faults))
        utterances = unique((row.utterance for row in rows), faults)
        report(name, utterances, faults, out)
        row_of = {row.utterance.id: row for row in reversed(rows)}  # of two, the first
        audio = out / "audio" / f"ami_{name}"
        lost: Faults = defaultdict(list)
        paths = even_sample_of_usable(
            [u.id for u in utterances],
            SIZES[size][name != "train"],
            lambda ids, row_of=row_of, audio=audio, lost=lost: ami_parquet.write_audio(
                [row_of[utt] for utt in ids], audio, lost
            ),
        )
        report_left_out(logger, f"ami_{name}", lost)
        list_left_out(out / f"ami_{name}", faults | lost)
        if not paths:
            raise PamError(
                f"{folder}: no audio in the set {name}: copy the data set with it inside"
            )
        texts = common_files([u for u in utterances if u.id in paths]) | {"wav.scp": paths}
        DataDir(texts).write(out / f"ami_{name}")
        count = len(texts["text"])
        logger.info("ami_%s: %d of %d utterances", name, count, len(utterances))


def report(name: str, utterances: Sequence[Utterance], faults: Faults, out: Path) -> None:
    """Say what there is of a set; `PamError` where that is nothing."""
    report_left_out(logger, f"ami_{name}", faults)
    list_left_out(out / f"ami_{name}", faults)
    if not utterances:
        first = f"; {faults[NO_AUDIO][0]} has no audio" if faults.get(NO_AUDIO) else ""
        raise PamError(
            f"ami_{name}: no utterance: complete the corpus (local/download.py FOLDER){first}"
        )
    report_count(logger, f"ami_{name}", len(utterances), PUBLISHED[name])
    logger.info(
        "ami_%s: %d speakers, %.2f h, %d utterances begin before the last of their headset ends",
        name, len({u.speaker for u in utterances}),
        sum(u.end - u.start for u in utterances) / 3600, overlapping(utterances),
    )  # fmt: skip
    longest = max(utterances, key=lambda u: u.end - u.start)
    seconds = longest.end - longest.start
    # A mark whose time is far away makes an utterance of minutes.
    logger.info("ami_%s: the longest lasts %.1f s: %s", name, seconds, longest.id)


def common_files(utterances: Sequence[Utterance]) -> Files:
    return {
        "text": {u.id: u.text for u in utterances},
        "utt2spk": {u.id: u.speaker_id for u in utterances},
        "utt2cluster": {u.id: u.meeting for u in utterances},
        "utt2task": {u.id: TASK for u in utterances},
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="", help="folder of annotations and recordings")
    parser.add_argument("--parquet", default="", help="instead: a copy of edinburghcstr/ami, ihm")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--sets", nargs="+", default=[f"ami_{name}" for name in PUBLISHED])
    parser.add_argument("--size", choices=SIZES, default="long")
    args = parser.parse_args(argv)
    sets = [name.removeprefix("ami_") for name in args.sets]
    for name, part in zip(args.sets, sets, strict=True):
        if part not in PUBLISHED:
            raise PamError(f"--sets {name}: this recipe makes ami_train, ami_dev, ami_test")
    if bool(args.corpus) == bool(args.parquet):
        raise PamError(
            "egs/ami/db.sh: set one of AMI and AMI_PARQUET, the folder of the corpus or of a copy "
            "of edinburghcstr/ami (local/download.py FOLDER fetches the corpus, CC BY 4.0)"
        )
    source = Path(args.corpus or args.parquet)
    if not source.is_dir():
        raise PamError(f"{source}: no such folder: correct egs/ami/db.sh")
    (from_corpus if args.corpus else from_parquet)(source, args.out, args.size, sets)


if __name__ == "__main__":
    run_main(main)
