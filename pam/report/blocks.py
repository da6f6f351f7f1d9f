"""RESULTS.md taken apart again: what pam/report/markdown.py wrote, as blocks of plain text."""

import re
from typing import Any
from urllib.parse import unquote

_BLOCK = re.compile(
    r"""^(?:
      (?P<fence>`{3,})text\n(?P<code>(?s:.*?))\n(?P=fence)
    | (?P<level>\#{1,6})\ (?P<heading>.*)
    | (?P<table>\|.*(?:\n\|.*)*)
    | (?P<list>-\ .*(?:\n-\ .*)*)
    | !\[(?P<name>[^\]]*)\]\((?P<file>[^)]*)\)
    | (?P<text>.+)
    )$""",
    re.MULTILINE | re.VERBOSE,
)
_CELL = re.compile(r"((?:\\.|[^\\|])*)\|")
_ESCAPED_OR_CODE = re.compile(r"\\(?P<escaped>.)|`(?P<code>[^`]*)`")
# A file beside the document, after a text: a page that stands alone has none. `escape` leaves none.
_FILE = re.compile(r" \(\[\w+\]\([^()]*\)\)$")

Block = dict[str, Any]


def blocks(document: str) -> list[Block]:
    """The blocks of a document of ours, in order; their texts are those before `escape`.

    Each has a `kind`: heading (level, text), table (header, right: is the column aligned right?,
    rows), list (items), code (text), figure (name, file) or text (text).
    """
    return [_block(match) for match in _BLOCK.finditer(document)]


def plain(markdown: str) -> str:
    """The text that `escape` was given; code spans lose their backticks."""
    return _ESCAPED_OR_CODE.sub(lambda found: found["escaped"] or found["code"] or "", markdown)


def _block(match: re.Match[str]) -> Block:
    if match["code"] is not None:
        return {"kind": "code", "text": match["code"]}
    if match["level"]:
        return {"kind": "heading", "level": len(match["level"]), "text": plain(match["heading"])}
    if match["table"]:
        return _table(match["table"])
    if match["list"]:
        items = [plain(line.removeprefix("- ")) for line in match["list"].split("\n")]
        return {"kind": "list", "items": items}
    if match["file"] is not None:
        return {"kind": "figure", "name": plain(match["name"]), "file": unquote(match["file"])}
    return {"kind": "text", "text": plain(_FILE.sub("", match["text"]))}


def _table(lines: str) -> Block:
    header, rules, *rows = (_CELL.findall(line[1:]) for line in lines.split("\n"))
    return {
        "kind": "table",
        "header": [plain(cell.strip()) for cell in header],
        "right": [rule.strip().endswith(":") for rule in rules],
        "rows": [[plain(cell.strip()) for cell in row] for row in rows],
    }
