"""A report as data: blocks of plain text. RESULTS.md and the page are both rendered from them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pam.report.markdown import LONGEST, escape, fenced, one_line
from pam.report.markdown import table as markdown_table

Block = dict[str, Any]


def heading(level: int, text: Any) -> Block:
    return {"kind": "heading", "level": level, "text": one_line(text)}


def paragraph(text: Any) -> Block:
    return {"kind": "text", "text": one_line(text)}


def bullets(texts: Iterable[Any]) -> Block:
    return {"kind": "list", "items": [one_line(text) for text in texts]}


def code(text: str) -> Block:
    return {"kind": "code", "text": text.strip()}


def figure(file: str, caption: str) -> Block:
    """`file`: a PNG, relative to the folder of the document; its SVG is in the same folder."""
    return {"kind": "figure", "name": Path(file).stem, "file": file, "caption": caption}


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Block:
    """A ":" at the end of a header aligns its column right. Long cells are cut; None is a gap."""
    return {
        "kind": "table",
        "header": [one_line(name).removesuffix(":") for name in header],
        "right": [str(name).endswith(":") for name in header],
        "rows": [[one_line(cell, LONGEST) for cell in row] for row in rows],
    }


def to_markdown(blocks: Iterable[Block]) -> str:
    """The blocks in order, separated by empty lines."""
    return "\n\n".join(map(_markdown, blocks))


def _markdown(block: Block) -> str:
    match block["kind"]:
        case "heading":
            return f"{'#' * block['level']} {escape(block['text'], None)}"
        case "text":
            return escape(block["text"], None)
        case "list":
            return "\n".join(f"- {escape(item, None)}" for item in block["items"])
        case "code":
            return fenced(block["text"])
        case "figure":
            svg = Path(block["file"]).with_suffix(".svg").as_posix()
            image = f"![{block['name']}]({quote(block['file'])})"
            return f"{image}\n\n{escape(block['caption'], None)} ([SVG]({quote(svg)}))"
    columns = zip(block["header"], block["right"], strict=True)
    header = [escape(name) + ":" * right for name, right in columns]
    return markdown_table(header, [[escape(cell) for cell in row] for row in block["rows"]])
