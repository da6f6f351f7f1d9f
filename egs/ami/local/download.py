#!/usr/bin/env python3
"""Download AMI's annotations and headset recordings into FOLDER.

    local/download.py FOLDER [MEETING …]     22 MB of annotations, 687 recordings
    local/download.py FOLDER --sets ami_test

CC BY 4.0, from https://groups.inf.ed.ac.uk/ami. The same command resumes. Recordings have no
published checksums: their length is compared with what the server says.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam and tools, installed or not

from ami_utterances import headsets, meetings_of_sets  # noqa: E402

from pam.errors import PamError, run_main  # noqa: E402
from pam.log import get_logger, progress  # noqa: E402
from pam.registry import nearest  # noqa: E402
from tools.fetch_url import RefusedError, download, unpack  # noqa: E402

URL = "https://groups.inf.ed.ac.uk/ami"
ANNOTATIONS = "ami_public_manual_1.6.2.zip"
OUTAGE = 3  # recordings in a row that fail, though the server did not refuse them
logger = get_logger("download")


def fetch_annotations(folder: Path, url: str) -> None:
    if not (folder / "annotations").is_dir():
        archive = download(f"{url}/AMICorpusAnnotations/{ANNOTATIONS}", folder / ANNOTATIONS)
        unpack(archive, folder / "annotations")


def fetch_recordings(folder: Path, meetings: list[str], url: str) -> None:
    """All of them; those that could not be fetched are an error at the end, or, in an outage, soon:
    each takes minutes to fail."""
    counts = headsets()
    names = [(meeting, n) for meeting in meetings for n in range(counts[meeting])]
    failed, in_a_row = [], 0
    for meeting, n in progress(names, len(names), "recordings"):
        place = f"amicorpus/{meeting}/audio/{meeting}.Headset-{n}.wav"
        try:
            download(f"{url}/AMICorpusMirror/{place}", folder / place)
            in_a_row = 0
        except PamError as error:
            in_a_row = 0 if isinstance(error, RefusedError) else in_a_row + 1
            if in_a_row == OUTAGE:
                raise
            logger.warning("%s", error)
            failed.append(place)
    if failed:
        raise PamError(
            f"{len(failed)} of {len(names)} recordings could not be fetched, the first is "
            f"{failed[0]}: run the same command again"
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="for the corpus")
    parser.add_argument("meetings", nargs="*", metavar="MEETING", help="default: those of --sets")
    partition = {f"ami_{name}": meetings for name, meetings in meetings_of_sets().items()}
    parser.add_argument("--sets", nargs="+", choices=partition, default=list(partition))
    parser.add_argument("--url", default=URL, help="a mirror")
    args = parser.parse_args(argv)
    if not args.folder:
        raise PamError("AMI is not set: in egs/ami/db.sh, name a folder for the corpus")
    for meeting in args.meetings:
        if meeting not in headsets():
            raise PamError(f"unknown meeting {meeting!r}: {nearest(meeting, headsets())}")
    fetch_annotations(Path(args.folder), args.url)
    of_sets = [meeting for name in args.sets for meeting in partition[name]]
    fetch_recordings(Path(args.folder), args.meetings or of_sets, args.url)


if __name__ == "__main__":
    run_main(main)
