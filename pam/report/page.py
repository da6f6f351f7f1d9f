"""report.html: tables, figures and answers on one page that needs no network.

All data are in one block of JSON. The content security policy allows only the page's own script,
which shows the data as text. So text from a model, a prompt or a corpus never runs as code.
"""

import base64
import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pam.data.tasks import all_tasks
from pam.report.answers import DecodedSet, decoded_sets, entries
from pam.report.blocks import Block, paragraph
from pam.report.clips import MEDIA_TYPE, Clips, take_clips
from pam.report.results import Results
from pam.score.score_set import metric_of

LIMIT = 15_000_000  # bytes of a page; clips are left out to keep it
_IMAGES = {".png": "image/png", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; "
    "media-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page(
    document: Sequence[Block],
    folder: Path,
    experiments: Sequence[Results],
    exps: Sequence[Path],
    data: Sequence[Path],
    clips: int = 10,
    limit: int = LIMIT,
) -> str:
    """The whole page.

    Args:
        document: the report; its links of figures are relative to `folder`.
        experiments: the results of `exps`.
        exps: the experiments whose answers are shown.
        data: for each experiment, the folder of SET/wav.scp.
        clips: largest number of embedded clips per set.
        limit: largest size of the page in bytes; clips are left out to keep it.
    """
    sets = decoded_sets(exps)
    raw = dict(zip(exps, data, strict=True))
    folders = [raw[one.exp] / one.name for one in sets]
    answers = [entries(one.items) for one in sets]
    content = {
        "title": ", ".join(results["name"] for results in experiments),
        "blocks": [part for block in document for part in _with_image(block, folder)],
        "weights": {results["name"]: results["weights"] for results in experiments},
        "verdicts": {name: metric_of(name).verdicts for name in all_tasks()},
        "media": MEDIA_TYPE,
    }
    without = render(content | _browser(sets, answers, take_clips(sets, folders, 0, 0)))
    found = take_clips(sets, folders, clips, limit - len(without))
    return render(content | _browser(sets, answers, found))


def render(content: Mapping[str, Any]) -> str:
    """The page of some content."""
    style, script = _part("page.css"), _part("page.js")
    return string.Template(_part("page.html")).substitute(
        policy=_POLICY.format(script=_digest(script), style=_digest(style)),
        style=style,
        script=script,
        data=to_json(content),
    )


def to_json(value: Any) -> str:
    """JSON in ASCII that cannot close its HTML element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


def _browser(
    sets: Sequence[DecodedSet], answers: Sequence[Sequence[dict[str, Any]]], clips: Clips
) -> dict[str, Any]:
    """The sets with their answers. `clip` of an answer is an index in `clips`, or a reason."""
    shown = [
        {
            "name": one.name,
            "tag": one.tag,
            "exp": one.exp.resolve().name,
            "total": one.total,
            "answers": [answer | {"clip": own.of(answer["id"])} for answer in some],
        }
        for one, some, own in zip(sets, answers, clips.sets, strict=True)
    ]
    return {"clips": clips.audio, "sets": shown}


def _with_image(block: Block, folder: Path) -> list[Block]:
    """A figure with its file as a data URI, and its caption. Other blocks are unchanged."""
    if block["kind"] != "figure":
        return [block]
    file = folder / block["file"]
    encoded = base64.b64encode(file.read_bytes()).decode("ascii")
    image = f"data:{_IMAGES[file.suffix]};base64,{encoded}"
    shown = {"kind": "figure", "name": block["name"], "image": image}
    return [shown, paragraph(block["caption"])]


def _part(name: str) -> str:
    return resources.files("pam.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The hash of an inline style or script in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
