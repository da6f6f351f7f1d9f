"""The memory that the tutorial states for the paper's scale is what `pam.bin.plan` predicts."""

import json
import re
import shlex
from pathlib import Path

import pytest

from pam.bin.plan import main

PAGE = (Path(__file__).resolve().parents[2] / "egs/README.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## 6. Reproduce the paper")[2].partition("**Tables.**")[0]
SHOWN = re.findall(r"^    python -m pam\.bin\.plan (--scale paper .*)$", SECTION, re.MULTILINE)
PREDICTING = [options for options in SHOWN if "--fit" not in options]  # --fit measures
TABLES = " ".join(PAGE.partition("**Tables.**")[2].split())
RECOMPUTED = "--set llm_conf.gradient_checkpointing=true"
OTHERS = [
    ("salmonn", "", "the plan predicts {} GiB for its many features"),
    ("salmonn", RECOMPUTED, "features, and {} GiB with it"),
    ("pam", "", "`pam` {}"),
    ("average", "", "`average` {}"),
    ("wavllm", "", "`wavllm` {} GiB without"),
]


def predicted(options: str, capsys) -> str:
    assert main([*shlex.split(options), "--json"]) == 0
    return f"{json.loads(capsys.readouterr().out)['peak_bytes'] / 2**30:.1f}"


def test_there_are_commands():
    assert len(PREDICTING) == 6


@pytest.mark.parametrize("options", PREDICTING)
def test_a_command_predicts_the_figure_of_its_paragraph(options, capsys):
    """The last paragraph of text before the command; two commands share one."""
    before = SECTION.partition(options)[0]
    *_, paragraph = (part for part in before.split("\n\n") if not part.startswith("    "))
    assert f" {predicted(options, capsys)} GiB" in " ".join(paragraph.split())


@pytest.mark.parametrize(("system", "more", "words"), OTHERS)
def test_systems_of_the_tables_on_eight_gpus(system, more, words, capsys):
    found = predicted(f"--scale paper --system {system} --gpus 8 {more}", capsys)
    assert words.format(found) in TABLES, found
