import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from handmade import make_experiment  # noqa: E402


@pytest.fixture
def experiment(tmp_path):
    return make_experiment(tmp_path)
