"""Tables without figures."""

import pytest


@pytest.fixture(autouse=True)
def tables_without_figures(no_figures):
    """A test that is about them asks for `figures`."""
