"""Progress: a bar on a terminal, lines with the time left elsewhere."""

import io
import logging

import pytest

from pam import log


def test_lines_with_the_time_left(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(log.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert list(log.progress("abcdefghij", 10, "decode")) == list("abcdefghij")
    assert [record.getMessage() for record in caplog.records] == [
        "decode: 3 / 10 (40 s, ETA 0:01:33)",
        "decode: 7 / 10 (80 s, ETA 0:00:34)",
    ]


@pytest.mark.parametrize("done", [0, 2])
def test_a_bar_on_a_terminal(monkeypatch, caplog, done):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    if done:
        with log.progress_bar(4, "llm", done) as bar:
            bar.update()
        assert "llm:  75%" in terminal.getvalue() and "3/4" in terminal.getvalue()
        return
    assert list(log.progress("abcd", 4, "decode")) == list("abcd")
    assert "decode: 100%" in terminal.getvalue() and not caplog.records
