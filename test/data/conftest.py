"""A small data directory on disk."""

import pytest
from small_dirs import text_files

from pam.data.datadir import DataDir


@pytest.fixture
def folder(tmp_path):
    DataDir(text_files()).write(tmp_path / "set")
    return tmp_path / "set"
