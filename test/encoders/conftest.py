import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)

from tiny import CASES, save_tiny  # noqa: E402

from pam.encoders import AudioEncoder, load_encoder  # noqa: E402


@pytest.fixture(scope="session")
def tiny_specs(tmp_path_factory) -> dict[str, dict]:
    return {case: save_tiny(case, tmp_path_factory.mktemp(case)) for case in CASES}


@pytest.fixture(scope="session")
def tiny_encoders(tiny_specs) -> dict[str, AudioEncoder]:
    return {case: load_encoder(spec) for case, spec in tiny_specs.items()}


@pytest.fixture(params=list(CASES))
def encoder(request, tiny_encoders) -> AudioEncoder:
    return tiny_encoders[request.param]
