"""What a table still lacks: which experiments are to be run, and how long they will take."""

from types import SimpleNamespace

import pytest
from stored_results import LEVELS, SHORT, table_1, write

from pam.bin import table
from pam.errors import PamError
from pam.paper import plan


def test_the_plan_names_each_experiment_once(tmp_path, capsys):
    kept = table_1()
    del kept["salmonn_mini_short_s0"]
    results = write(tmp_path, kept)
    argv = ["--table", "1", "--results", str(results)]
    table.main([*argv, "--plan", "--seeds", "0", "1"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["experiment", "salmonn_mini_short_s0", "salmonn", "0", "false"]
    assert [line[1] for line in lines[1:]] == [f"{system}_mini_short_s1" for system in LEVELS]
    table.main(["--table", "13", "--results", str(results), "--plan"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "experiment single_whisper-hubert_mini_short_s0 single_whisper 0 false "
        "--set 'use_encoders=[hubert]'"
    )
    # Six pairs and four triples follow. All four encoders are those of Table 1's PaM.
    assert len(lines) == 1 + 6 + 4


@pytest.mark.parametrize("action", ["--plan", "--dry_run"])
def test_files_of_models_that_are_not_here_are_said_before_anything_is_trained(
    tmp_path, caplog, action, monkeypatch
):
    models = {"beats": tmp_path / "beats.pt", "own": tmp_path}
    encoders = {name: SimpleNamespace(path=str(path)) for name, path in models.items()}
    read = SimpleNamespace(encoders=encoders, llm_conf={"path": "user/on-the-hub"})
    monkeypatch.setattr(plan, "read_experiment", lambda *files, assignments: read)
    argv = ["--table", "1", "--results", str(write(tmp_path, {})), action, "--seeds", "0", "1"]
    table.main(argv)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    where = "set its path in conf/scale/mini.yaml or conf/tables/scales.yaml"
    first = "single_whisper_mini_short_s0"
    assert said.startswith(f"there is no {models['beats']}: {where} ({first}, ")
    caplog.clear()
    models["beats"].touch()
    table.main(argv)
    assert not caplog.records


def test_a_dry_run_predicts_the_time(tmp_path, capsys):
    kept = table_1()
    del kept["salmonn_mini_short_s0"]
    kept["pam_mini_short_s0"]["seconds"] = {"train": 60 * 100}
    results = write(tmp_path, kept)
    argv = ["--table", "1", "--results", str(results), "--dry_run"]
    table.main([*argv, "--seeds", "0"])
    others = (100 + 5 * 11) / 6  # minutes; what was dumped is not done again
    expected = f"missing: salmonn_mini_short_s0, about {round(others)} min\n1 to run, about"
    assert expected in capsys.readouterr().out
    table.main([*argv, "--seeds", "7"])
    assert "missing: pam_mini_short_s7, about 1 h 40 min" in capsys.readouterr().out
    table.main(["--table", "3", "--results", str(tmp_path / "none"), "--dry_run"])
    output = capsys.readouterr().out
    assert f"2 to run, each of {SHORT}; no time is known yet" in output
    assert "table03: no all_large: the mini scale has no larger encoder in the place of W" in output
    assert not (results / "mini/table01.md").exists()


def test_a_dry_run_names_results_that_count_with_other_options(tmp_path, capsys):
    """Half of a table with them, half without, decides nothing."""
    given = ["--train_args", "--set dev_utts=4 --set=accum_grad=2"]
    kept = table_1(options=["accum_grad=2", "dev_utts=4"])
    argv = ["--table", "1", "--results", str(write(tmp_path, kept)), "--dry_run"]
    table.main(argv)
    assert "counted" not in capsys.readouterr().out  # nothing is to be trained
    results = tmp_path / "mini"
    (results / "salmonn_mini_short_s0.json").unlink()
    table.main([*argv, *given])
    assert "counted" not in capsys.readouterr().out
    table.main(argv)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("counted: ")]
    names = [f"{system}_mini_short_s0" for system in LEVELS if system != "salmonn"]
    assert all(name in line for name in names)
    assert line.endswith(
        ", trained with --set accum_grad=2 --set dev_utts=4; the missing ones would be trained "
        "with no further --set: give the same --train_args, or leave published results out with "
        "--published false"
    )
    kept = {"pam_mini_short_s0": kept["pam_mini_short_s0"] | {"options": []}}
    write(tmp_path, kept)
    table.main([*argv, *given])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("counted: ")]
    assert line.startswith("counted: pam_mini_short_s0, trained with no further --set; the missing")


def test_a_result_without_a_metric_that_is_asked_for_is_scored_again(tmp_path, capsys):
    kept = table_1()
    kept["pam_mini_short_s0"]["seconds"] |= {"score": 170, "report": 10}
    for name in LEVELS:
        if name != "pam":
            made = kept[f"{name}_mini_short_s0"]["sets"]["ac_test"]["metrics"]
            made["cider"] = made["meteor"]
    results = write(tmp_path, kept)
    argv = ["--table", "7", "--results", str(results), "--metrics", "meteor, cider"]
    argv += ["--expdir", str(tmp_path / "exp")]
    model = tmp_path / "exp/pam_mini_short_s0/model.pth"
    model.parent.mkdir(parents=True)
    model.touch()
    table.main([*argv, "--plan"])
    assert capsys.readouterr().out.split() == [
        *("experiment", "pam_mini_short_s0", "pam", "0", "false")
    ]
    table.main([*argv, "--dry_run"])  # decoding, scoring, report
    assert "missing: cider of pam_mini_short_s0, about 4 min\n" in capsys.readouterr().out
    model.unlink()
    for action in ("--plan", "--dry_run"):
        with pytest.raises(PamError, match="pam_mini_short_s0 lacks cider, and .* no model.pth"):
            table.main([*argv, action])
    capsys.readouterr()
    argv[5] = "meteor,cider"
    table.main([*argv[:5], "meteor", "--plan"])
    table.main(["--table", "1", *argv[2:], "--plan"])  # which does not show it
    assert capsys.readouterr().out == ""


def test_a_result_without_a_set_of_the_table_is_not_done(tmp_path, capsys):
    kept = table_1()
    del kept["average_mini_short_s0"]["sets"]["ac_test"]
    kept["salmonn_mini_short_s0"]["sets"] = {}  # decoded with seen prompts alone
    argv = ["--table", "1", "--results", str(write(tmp_path, kept)), "--expdir", str(tmp_path)]
    for name in ("average", "salmonn"):
        (tmp_path / f"{name}_mini_short_s0").mkdir()
        (tmp_path / f"{name}_mini_short_s0/model.pth").touch()
    table.main([*argv, "--plan"])
    planned = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in planned] == [
        "salmonn_mini_short_s0",
        "average_mini_short_s0",
    ]
    table.main([*argv, "--dry_run"])
    output = capsys.readouterr().out
    assert "missing: ac_test of average_mini_short_s0, about 1 min\n" in output
    assert "asr_clean_test, asr_noisy_test, snv_test_real, ac_test of salmonn" in output


def test_table_12_needs_an_analysis(tmp_path, capsys):
    (tmp_path / "pam_mini_short_s0").mkdir()
    (tmp_path / "pam_mini_short_s0/model.pth").touch()
    kept = table_1()
    argv = ["--results", str(tmp_path), "--expdir", str(tmp_path), "--plan", "--table"]
    write(tmp_path, kept)
    table.main([*argv, "1"])
    assert capsys.readouterr().out == ""
    table.main([*argv, "12"])
    assert capsys.readouterr().out.split() == [
        *("experiment", "pam_mini_short_s0", "pam", "0", "true")
    ]
    kept["pam_mini_short_s0"]["similarity"] = [{}]
    write(tmp_path, kept)
    table.main([*argv, "12"])
    assert capsys.readouterr().out == ""
