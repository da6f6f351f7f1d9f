"""Write the results block of a README, between two markers."""

from collections.abc import Sequence
from pathlib import Path

from pam.atomic import write_text
from pam.errors import PamError
from pam.report import tables
from pam.report.blocks import to_markdown
from pam.report.markdown import escape
from pam.report.results import Results

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def update_readme(path: Path, experiments: Sequence[Results]) -> None:
    """Replace the text between the markers in the README at `path`.

    Raises:
        PamError: the markers are missing or in the wrong order.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PamError(f"{path}: the results need the lines {BEGIN} and {END}: add them")
    write_text(path, f"{before}{BEGIN}\n{block(experiments)}\n{END}{after}")


def block(experiments: Sequence[Results]) -> str:
    """Per experiment: its settings, sets, router, and the loss with shuffled audio."""
    parts = []
    for experiment in experiments:
        command, commit = (experiment["environment"].get(key) for key in ("command", "commit"))
        # A code span needs no escapes, but a backtick would end it.
        made = f"`{command.replace('`', '')}`" if command else "a command that was not recorded"
        main = next(iter(experiment["decodings"].values()), {})
        shown = [tables.main_table(main), tables.router_table(experiment)]
        shown.append(tables.hearing_table(experiment["hearing"]))
        name = escape(experiment["name"])
        parts += [f"**{name}**, by {made} at commit {escape(commit or 'unknown')}:"]
        parts += [to_markdown(shown)]
    return "\n\n".join(parts)
