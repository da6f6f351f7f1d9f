"""Data flows one way: a room imports only rooms before it, late imports included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ["data", "encoders", "fusion", "llm", "model", "train", "decode", "score"]
ROOMS += ["analysis", "report", "exits", "paper", "hf", "serve", "demo", "bin"]
FOUNDATION = ["atomic", "checkpoint", "config", "device", "disk", "environment", "errors", "lock"]
FOUNDATION += ["log", "options", "paths", "rate", "registry"]
FILES = sorted((ROOT / "pam").rglob("*.py"))


def room(file: Path) -> str:
    """The folder under pam/, or the name of a foundation file."""
    return file.relative_to(ROOT / "pam").with_suffix("").parts[0]


def imported(tree: ast.AST) -> set[str]:
    """Names under pam that a file imports, or names in strings like "pam.fusion.pam:Mixture"."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"line {node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            names.add(node.value.partition(":")[0])
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "pam" and len(part) > 1}


def allowed(place: str) -> set[str]:
    if place in FOUNDATION:
        return set(FOUNDATION)
    return {*FOUNDATION, *ROOMS[: ROOMS.index(place) + 1], "__version__"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_only_what_is_before(file):
    place = room(file)
    if place == "__init__":
        return
    assert place in ROOMS + FOUNDATION, f"{file}: no room {place!r}: see ROOMS"
    wrong = imported(ast.parse(file.read_text(encoding="utf-8"))) - allowed(place)
    assert not wrong, f"{file}: {place} must not import {', '.join(sorted(wrong))}"


def test_the_check_sees_late_imports_and_registries():
    late = "def f():\n    from pam.train import task\n"
    assert imported(ast.parse(late)) == {"train"}
    assert imported(ast.parse('T = {"x": "pam.score.wer:WER"}')) == {"score"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_espnet_breaks_is_not_imported(file):
    """g2p_en downloads when it is imported; espnet.* has moved in later versions."""
    names = [
        name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    for name in names:
        assert name.partition(".")[0] not in ("espnet", "espnetez"), name
        assert name not in ("espnet2.train.preprocessor", "espnet2.train.collate_fn"), name


def test_kaldiio_stays_behind_one_module():
    users = [file for file in FILES if "import kaldiio" in file.read_text(encoding="utf-8")]
    assert [str(file.relative_to(ROOT)) for file in users] == ["pam/data/archive.py"]
