"""Common Voice as it is distributed: PART.tsv, one line a clip, and clips/*.mp3.

The files are written without quotes: a quotation mark is a character like any other, and a
backslash stands before a tab, a quotation mark or a line break of the sentence. `client_id` is the
speaker.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from pam.data.corpus import reading, report_count
from pam.errors import PamError
from pam.log import get_logger

# Clips of the tables of version 4, English, by Common Voice's own statistics.
PUBLISHED = {"train": 232975, "dev": 15531}
logger = get_logger("prepare")


def read_speakers(corpus: Path, part: str) -> dict[str, list[str]]:
    """{client_id: names of his clips, sorted} of PART.tsv.

    Clips that are not there, and empty files, which version 4 has, are counted.
    """
    table, folder = corpus / f"{part}.tsv", corpus / "clips"
    for path in (table, folder):
        if not path.exists():
            raise PamError(f"{path}: missing: unpack Common Voice (English), or correct db.sh")
    there = {file.name for file in folder.iterdir()}
    speakers: dict[str, set[str]] = {}
    missing: set[str] = set()
    for client, clip in _rows(table):
        if clip in there and (folder / clip).stat().st_size > 0:
            speakers.setdefault(client, set()).add(clip)
        else:
            missing.add(clip)
    count = len(missing) + sum(map(len, speakers.values()))
    report_count(logger, f"{table} (version 4)", count, PUBLISHED[part], "clips")
    if missing:
        logger.warning(
            "%s: %d clips are not in %s, or are empty there: left out, the first is %s",
            table, len(missing), folder, min(missing),
        )  # fmt: skip
    if not speakers and not missing:
        raise PamError(f"{table}: no clips in it: unpack it again")
    if not speakers:
        raise PamError(f"{table}: none of its clips is in {folder}: unpack the clips there")
    return {client: sorted(speakers[client]) for client in sorted(speakers)}


def _rows(table: Path) -> Iterator[tuple[str, str]]:
    """(client_id, file name) of each line; utf-8-sig: some tools write a byte order mark."""
    with reading(table), table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        header = next(rows, [])
        if not {"client_id", "path"} <= set(header):
            raise PamError(f"{table}: no columns client_id and path: use Common Voice's own file")
        places = header.index("client_id"), header.index("path")
        for row in filter(None, rows):  # an editor may leave an empty line at the end
            if len(row) <= max(places) or not all(row[place] for place in places):
                raise PamError(f"{table}:{rows.line_num}: no speaker or no clip: unpack it again")
            client, clip = (row[place] for place in places)
            yield client, clip if Path(clip).suffix else f"{clip}.mp3"
