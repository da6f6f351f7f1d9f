"""Tables without figures, and with them."""

import pytest

from pam.report.figures import can_draw


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take seconds: a test that is about them asks for `figures`."""
    monkeypatch.setattr("pam.bin.table.can_draw", lambda: False)


@pytest.fixture
def figures(no_figures, monkeypatch):
    monkeypatch.setattr("pam.bin.table.can_draw", can_draw)
