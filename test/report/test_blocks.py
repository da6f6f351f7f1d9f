"""What markdown.py writes is read back as it was."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pam.report.blocks import blocks, plain
from pam.report.markdown import escape, fenced, table

TEXT = st.text(st.sampled_from("ab \\`*_[]<>|~$&#!-()\"'é"), max_size=12)


def spaced(text):
    """As `escape` does it: on one line."""
    return " ".join(text.split())


@settings(deadline=None, max_examples=200)
@given(TEXT)
def test_plain_is_the_inverse_of_escape(text):
    assert plain(escape(text)) == spaced(text)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_tables_keep_their_cells(rows):
    header = ["a", "p | q:"]
    written = table([escape(name) for name in header], [[*map(escape, row)] for row in rows])
    (block,) = blocks(f"{written}\n")
    assert block == {
        "kind": "table",
        "header": ["a", "p | q"],
        "right": [False, True],
        "rows": [[*map(spaced, row)] for row in rows],
    }


def test_every_kind_of_block():
    document = "\n\n".join(
        [
            "# Results\n\nBy `python -m x`: run it, do not edit.",
            f"### {escape('a *b* [c](d)')}",
            "![curves](../my%20figures/curves.png)",
            "- one: \\*\n- two\n\nThe settings:\n\n" + fenced("# no heading\n```\n| no | table |"),
            "| a |\n| --- |\n| b |\n\nlast",
        ]
    )
    assert blocks(document) == [
        {"kind": "heading", "level": 1, "text": "Results"},
        {"kind": "text", "text": "By python -m x: run it, do not edit."},
        {"kind": "heading", "level": 3, "text": "a *b* [c](d)"},
        {"kind": "figure", "name": "curves", "file": "../my figures/curves.png"},
        {"kind": "list", "items": ["one: *", "two"]},
        {"kind": "text", "text": "The settings:"},
        {"kind": "code", "text": "# no heading\n```\n| no | table |"},
        {"kind": "table", "header": ["a"], "right": [False], "rows": [["b"]]},
        {"kind": "text", "text": "last"},
    ]


def test_a_page_alone_does_not_speak_of_files_beside_it():
    link = " ([SVG](my%20figures/curves.svg))"
    assert blocks(f"Curves.{link}")[0]["text"] == "Curves."
    assert blocks(escape(f"Curves.{link}"))[0]["text"] == f"Curves.{link}"


def test_escaped_text_is_no_figure():
    assert [block["kind"] for block in blocks(escape("![x](/etc/passwd)"))] == ["text"]
