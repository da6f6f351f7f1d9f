"""Where the results of a table come from: whatever was not made alike is named."""

import subprocess

from stored_results import BUDGET, SHORT, grid, render, result, table_1, write

from pam import environment
from pam.bin import table
from pam.config import load_yaml, scale_hash
from pam.paper import origin
from pam.paper.plan import budget_length
from pam.paper.spec import Row
from pam.paths import CONF


def test_experiments_that_were_not_made_alike_are_named(tmp_path):
    kept = table_1()
    assert "Not made alike" not in render(write(tmp_path, kept))
    kept["pam_mini_short_s0"]["training_hash"] = "other"
    assert "**Not made alike**" in render(write(tmp_path, kept))


def test_every_way_of_being_made_otherwise_is_named(tmp_path):
    now = scale_hash(CONF / "scale" / "mini.yaml")
    kept = table_1(seeds=(0, 1), scale_hash=now, setup_hash="x")
    assert "**Not" not in render(write(tmp_path, kept)) and "commits" not in render(tmp_path)
    kept["pam_mini_short_s1"] |= {
        "scale_hash": "b",
        "setup_hash": "y",
        "commit": "fedcba9876543210",
    }
    kept["salmonn_mini_short_s0"]["options"] = ["phases.llm.lr=1"]
    del kept["average_mini_short_s0"]["scale_hash"]  # made before it was recorded
    lines = render(write(tmp_path, kept)).splitlines()
    assert "- **Not made alike**: conf/scale/mini.yaml was another of pam_mini_short_s1." in lines
    line = "- Made with another conf/scale/mini.yaml than that of today: "
    assert f"{line}pam_mini_short_s1." in lines
    assert "- **Not made alike**: the seeds of pam differ in more than the seed." in lines
    assert (
        "- **Not made alike**: further options of salmonn_mini_short_s0: phases.llm.lr=1." in lines
    )
    assert any(
        line.startswith("- Made at 2 commits: 0123456789ab (13), fedcba987654 (1).")
        for line in lines
    )


def test_results_that_are_all_of_another_file_of_the_scale_are_named(tmp_path):
    text = render(write(tmp_path, table_1(scale_hash="a")))
    assert "- Made with another conf/scale/mini.yaml than that of today: all of these." in text
    assert "**Not made alike**" not in text


def test_a_budget_that_the_file_no_longer_says_is_named(tmp_path):
    kept = table_1(budget_conf=BUDGET)
    kept["pam_mini_short_s0"]["budget_conf"] = dict(reversed(BUDGET.items()))
    del kept["average_mini_short_s0"]["budget_conf"]  # made before it was recorded
    assert "**Not" not in render(write(tmp_path, kept))
    kept["pam_mini_short_s0"]["budget_conf"] = BUDGET | {"steps": 99}
    line = "**Not made alike**: budget short was ctc_steps "
    text = render(write(tmp_path, kept))
    assert f"{line}{BUDGET['ctc_steps']}, steps 99 for pam_mini_short_s0; " in text
    assert f"conf/scale/mini.yaml says {SHORT} now." in text


def test_a_budget_says_nothing_of_a_warm_up_that_is_not_done():
    assert budget_length("paper", "long") == "epochs 5"
    assert budget_length("mini", "short") == SHORT and "ctc_steps" in SHORT


def test_options_that_no_row_names_are_named_even_where_all_have_them(tmp_path):
    kept = {"pam_mini_short_s0": result("pam", options=["use_encoders=[whisper]"])}
    line = "- Further options of pam_mini_short_s0: use_encoders=\\[whisper\\]."
    for name in ("1", "8", "14", "figure3", "12"):
        assert line in render(write(tmp_path, kept), name).splitlines(), name


def test_rows_share_the_scales_llm_unless_they_name_one(tmp_path):
    """The head of a table says the scale's; the rows of Table 3 with other LLMs say theirs."""
    own = load_yaml(CONF / "scale/mini.yaml")["llm_conf"]["path"]
    kept = table_1(llm=own)
    text = render(write(tmp_path, kept))
    assert "**Not" not in text and grid(text, "Made with")["pam_mini_short_s0"][1] == own
    for name in ("salmonn", "average"):
        kept[f"{name}_mini_short_s0"]["llm"] = "user/other_llm"
    del kept["pam_mini_short_s0"]["llm"]  # made before it was recorded
    line = "- **Not made alike**: the LLM was user/other_llm for average_mini_short_s0, "
    line += f"salmonn_mini_short_s0; the table says {own}."
    assert line in render(write(tmp_path, kept)).splitlines()
    row = Row("a", "system", "pam", ("llm_conf.path=user/a",), "-a")
    rows = {row: [{"name": "good", "llm": "user/a"}, {"name": "bad", "llm": own}]}
    (said,) = origin._llms_differ("mini", rows)
    assert said.endswith(f"the LLM was {own} for bad; the table says user/a.")


def test_answers_that_were_decoded_in_another_way_are_named(tmp_path):
    kept = table_1()
    for made in kept.values():
        made["sets"]["ac_test"]["decoding"] = {"prompts": "unseen", "maxlenratio": 0.5}
    assert "**Not" not in render(write(tmp_path, kept))
    kept["pam_mini_short_s0"]["sets"]["ac_test"]["decoding"]["maxlenratio"] = 0.2
    line = "other options or prompts of decoding ac_test of pam_mini_short_s0."
    assert f"- **Not made alike**: {line}" in render(write(tmp_path, kept)).splitlines()


def test_the_model_of_a_metric_is_named_and_others_are_not_compared(tmp_path):
    kept = table_1()
    for made in kept.values():
        metrics = made["sets"]["ac_test"]["metrics"]
        metrics["sbert"] = {**metrics["meteor"], "model": "cache:mini-lm"}
    text = render(write(tmp_path, kept), "7")
    assert "- sBERT of ac_test is measured by cache:mini-lm; the paper's by paraphrase" in text
    rows = [line for line in text.splitlines() if line.startswith("| Whisper |")]
    assert "▽" in rows[0].split("|")[4]
    kept["pam_mini_short_s0"]["sets"]["ac_test"]["metrics"]["sbert"]["model"] = "mpnet"
    text = render(write(tmp_path, kept), "7")
    line = "- **Not comparable**: sBERT of ac_test was measured by another model in pam_mini"
    assert line in text
    rows = [line for line in text.splitlines() if line.startswith("| Whisper |")]
    assert "▽" not in rows[0].split("|")[4] and "▽" in rows[0].split("|")[2]


def test_that_files_differed_from_the_commit_stays_visible(tmp_path):
    kept = {"pam_mini_short_s0": result("pam", commit="0123456789abcdef-dirty")}
    assert "| 0123456789ab-dirty |" in render(write(tmp_path, kept))


def test_stored_results_are_no_source(tmp_path, monkeypatch):
    def git(*args):
        command = ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@x", *args]
        subprocess.run(command, check=True, capture_output=True)

    monkeypatch.setattr(environment, "ROOT", tmp_path)
    stored, source = tmp_path / "egs/mini/RESULTS/mini/a.json", tmp_path / "pam/a.py"
    for file in (stored, source):
        file.parent.mkdir(parents=True)
        file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    stored.write_text("2")
    assert len(environment.commit()) == 40
    source.write_text("2")
    assert environment.commit().endswith("-dirty")


def test_own_results_win_and_the_table_says_where_each_is_from(tmp_path):
    own, committed = tmp_path / "exp/results", tmp_path / "RESULTS"
    kept = table_1()
    write(committed, kept)
    pam = kept["pam_mini_short_s0"] | {"commit": "fedcba9876543210"}
    write(own, {"pam_mini_short_s0": pam})
    argv = ["--table", "1", "--results", str(own), str(committed)]
    before = {path: path.read_bytes() for path in committed.rglob("*") if path.is_file()}
    table.main(argv)
    made_with = grid((own / "mini/table01.md").read_text(encoding="utf-8"), "Made with")
    assert made_with["pam_mini_short_s0"][3] == "fedcba987654"
    assert made_with["pam_mini_short_s0"][-1].endswith("exp/results/mini")
    assert made_with["average_mini_short_s0"][-1].endswith("RESULTS/mini")
    assert before == {path: path.read_bytes() for path in committed.rglob("*") if path.is_file()}
    # Of one folder there is nothing to tell.
    assert grid(render(committed), "Made with")["pam_mini_short_s0"][-1] == "a \\| machine"
    table.main([*argv[:-1], str(own)])
    made_with = grid((own / "mini/table01.md").read_text(encoding="utf-8"), "Made with")
    assert made_with["experiment"][-1] == "machine" and "pam_mini_short_s0" in made_with
    assert "average_mini_short_s0" not in made_with
