"""The code that travels: all parts of all registries, flat, with relative imports only."""

import ast
import importlib
import sys
from types import ModuleType

import pytest
import transformers

from pam.encoders import ENCODERS
from pam.fusion import FUSIONS
from pam.hf import travel
from pam.hf.folder import ROOTS
from pam.hf.modeling_pam import LORA

PARTS = {*ENCODERS.entries.values(), *FUSIONS.entries.values(), *LORA.entries.values()}
# What an export must not need: data files, YAML schemas, training, ESPnet.
FOREIGN = ("pam.data", "pam.config", "pam.train", "pam.decode", "pam.model.speech_llm", "pam.log")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("code")
    travel.write_code(out, ROOTS, PARTS)
    return out


def test_every_import_of_pam_became_relative_and_its_file_is_there(folder):
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != "pam", file.name
                assert node.level <= 1
                assert node.level == 0 or (folder / f"{node.module}.py").is_file(), node.module
            elif isinstance(node, ast.Import):
                assert not [a.name for a in node.names if a.name.startswith("pam")], file.name


def test_it_needs_neither_data_nor_training():
    modules = travel.closure(ROOTS, PARTS)
    assert not [module for module in modules if module.startswith(FOREIGN)]
    assert "espnet2" not in travel.third_party(modules)


def test_only_parts_in_use_travel(tmp_path):
    parts = {"pam.encoders.whisper:WhisperAudioEncoder", "pam.fusion.average:Average"}
    modules = travel.write_code(tmp_path, ROOTS, parts)
    assert "pam.encoders.whisper" in modules and "pam.encoders.ssl" not in modules
    assert "peft" not in travel.third_party(modules)
    text = (tmp_path / "pam_encoders.py").read_text(encoding="utf-8")
    assert '".pam_encoders_whisper:WhisperAudioEncoder"' in text and "wavlm" not in text
    assert "from .pam_encoders_whisper import" in text  # transformers copies what is imported


def test_the_versions_of_all_packages_are_known():
    names = travel.third_party(travel.closure(ROOTS, PARTS))
    found = dict(text.split() for text in travel.with_versions(names))
    assert found["transformers"] == transformers.__version__ and [*found] == names
    assert not [version for version in found.values() if "+" in version]  # PyPI has no torch x+cpu


@pytest.mark.parametrize("module", ["configuration_pam", "processing_pam"])
def test_a_transformers_that_is_too_old_is_named(folder, monkeypatch, module):
    """The two modules that transformers imports first; version 4 has no `PreTrainedConfig`."""
    monkeypatch.delattr(transformers, "PreTrainedConfig", raising=False)
    monkeypatch.delitem(transformers._class_to_module, "PreTrainedConfig")
    monkeypatch.setattr(transformers, "__version__", "4.57.1")
    monkeypatch.setitem(sys.modules, "exported", package := ModuleType("exported"))
    package.__path__ = [str(folder)]
    with pytest.raises(
        ImportError, match=r"not work with transformers 4\.57\.1.*config\.json"
    ) as e:
        importlib.import_module(f"exported.{module}")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["import pam.errors", "from pam import errors"])
def test_other_imports_are_refused(monkeypatch, text):
    monkeypatch.setattr(travel, "source", lambda module: f"{text}\n")
    with pytest.raises(ValueError, match="import"):
        travel.imported("pam.hf.modeling_pam")
