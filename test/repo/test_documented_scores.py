"""Scores in conf/systems and in egs/multitask/RESULTS.md are those of the stored results."""

import json
import re
from pathlib import Path

import pytest

from pam.config import scale_hash

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "egs/multitask/RESULTS"
SYSTEMS = sorted((ROOT / "conf/systems").glob("*.yaml"))
HEADED = [*SYSTEMS, *ROOT.glob("conf/scale/*.yaml"), *ROOT.glob("conf/llm/*.yaml")]
UNITS = {
    "asr_clean_test": "% WER",
    "asr_noisy_test": "% WER",
    "snv_test_real": "% accuracy",
    "ac_test": "METEOR",
}
MAIN_METRIC = {"% WER": "wer", "% accuracy": "accuracy", "METEOR": "meteor"}
STAGES = ("train", "average", "decode", "score", "report")  # 4 to 8


def name(file: Path) -> str:
    return file.stem


def head(file: Path) -> str:
    """The comment that a configuration opens with."""
    return re.match(r"(?:#.*\n)+", file.read_text(encoding="utf-8"))[0]


def stored(system: str, budget: str = "short") -> list[dict]:
    """The results of a system at the mini scale, by seed."""
    files = sorted(RESULTS.glob(f"mini/{system}_mini_{budget}_s*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def values(results: list[dict], dataset: str) -> str:
    metric = MAIN_METRIC[UNITS[dataset]]
    found = [result["sets"][dataset]["metrics"][metric]["value"] for result in results]
    return ", ".join(f"{value:.1f}" for value in found)


@pytest.mark.parametrize("file", HEADED, ids=name)
def test_a_configuration_opens_with_command_time_and_score(file):
    lines = head(file).splitlines()
    assert any(re.match(r"#   cd egs/multitask && \./run\.sh --\w+", line) for line in lines)
    assert any(line.startswith("# Time: ") for line in lines)
    assert any(re.match(r"# Score(,.*)?: ", line) for line in lines)
    chosen = {"systems": "system", "scale": "scale", "llm": "llm"}[file.parent.name]
    option = "--config conf/paper.conf" if file.stem == "paper" else f"--{chosen} {file.stem}"
    assert option in head(file)


@pytest.mark.parametrize("file", SYSTEMS, ids=name)
def test_the_scores_of_a_system_are_the_stored_ones(file):
    """Those of the short budget, else those of half of it."""
    results, which = stored(file.stem), ""
    if not results:
        results, which = stored(file.stem, "half"), ", budget half"
    if not results:
        assert {"# Time: not run yet", "# Score: not run yet"} < set(head(file).splitlines())
        return
    seeds = ", ".join(str(result["seed"]) for result in results)
    scores = "; ".join(f"{d} {values(results, d)} {unit}" for d, unit in UNITS.items())
    text = " ".join(line.lstrip("# ") for line in head(file).splitlines())
    assert f"Score, mini{which}, seed{'s' * (len(results) > 1)} {seeds}: {scores}" in text
    today = scale_hash(ROOT / "conf/scale/mini.yaml")
    others = any(result["scale_hash"] != today for result in results)
    assert ("Made with another conf/scale/mini.yaml than that of today" in text) == others
    seconds = sum(results[0]["seconds"].get(stage, 0) for stage in STAGES)
    assert f"Time: {seconds / 60:.0f} min for stages 4 to 8" in text


@pytest.mark.parametrize("budget", ["short", "half"])
@pytest.mark.parametrize("file", SYSTEMS, ids=name)
def test_the_page_of_results_has_the_stored_scores(file, budget):
    results = stored(file.stem, budget)
    seeds = ", ".join(str(result["seed"]) for result in results)
    commits = ", ".join(result["commit"][:7] for result in results)
    scores = " | ".join(values(results, dataset) for dataset in UNITS)
    page = (ROOT / "egs/multitask/RESULTS.md").read_text(encoding="utf-8")
    if not results:
        assert budget == "half" or f"| `{file.stem}` | not run yet |" in page
        return
    assert f"| `{file.stem}` | {seeds} | {scores} | {commits} |" in page
