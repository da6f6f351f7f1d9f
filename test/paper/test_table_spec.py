"""conf/tables: what they name exists, in the project and in the paper; wrong names are errors."""

import shutil
from copy import deepcopy
from itertools import product
from pathlib import Path

import pytest
import yaml

from pam.config import load_yaml
from pam.errors import PamError
from pam.paper.kinds import KINDS
from pam.paper.printed import load_paper
from pam.paper.spec import load_spec, table_name, table_names
from pam.paths import CONF
from pam.train.systems import combine

SCALES = [file.stem for file in sorted((CONF / "scale").glob("*.yaml"))]
PAPER = load_paper()


def test_every_table_and_figure_of_the_paper_is_there():
    numbers = {int(name[5:]) for name in table_names() if name.startswith("table")}
    assert numbers == set(range(1, 17)) - {4}
    assert {"figure1", "figure3", "section45"} < set(table_names())
    assert (table_name("7"), table_name("figure1")) == ("table07", "figure1")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", table_names())
def test_table_fits_the_scale_and_the_paper(name, scale):
    spec = load_spec(name, scale)
    assert spec.kind in KINDS.names()
    if spec.paper is None:
        return
    paper = PAPER[spec.paper]
    if spec.kind != "systems":
        assert set((spec.conf.tasks or {}).values()) <= set(paper.rows)
        return
    assert list(spec.rows) == list(paper.rows)
    assert [*spec.shown, *spec.averages, *spec.ranks] == list(paper.columns)
    for column in spec.columns.values():
        if column.name in paper.columns:
            assert column.better == paper.columns[column.name].better, column
    if ours := spec.conf.delta:
        delta = PAPER[ours.paper]
        assert list(ours.rows) == list(delta.rows)
        assert set(delta.columns) <= set(spec.columns)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", table_names())
def test_every_system_can_be_configured(name, scale):
    """What the recipe passes on gives the encoders and the LLM that the row says."""
    conf = load_yaml(CONF / "scale" / f"{scale}.yaml")
    entries = load_yaml(CONF / "tables" / f"{name}.yaml").get("rows") or {}
    for row in load_spec(name, scale).rows.values():
        if row.how != "system" or row.missing:
            continue
        assert not any(" " in option for option in row.options), "the shell splits at spaces"
        system = load_yaml(CONF / "systems" / f"{row.system}.yaml")
        config = combine(deepcopy(conf), system, row.options)  # --set changes it in place
        asked = entries[row.name].get("encoders") or system.get("use_encoders", conf["encoders"])
        assert len(config["encoders"]) == len(asked), row
        own = entries[row.name].get("llm")
        assert (config["llm_conf"]["path"] == conf["llm_conf"]["path"]) == (own is None)


@pytest.mark.parametrize("scale", SCALES)
def test_the_same_name_is_the_same_system_in_all_tables(scale):
    seen = {}
    for row in (row for name in table_names() for row in load_spec(name, scale).systems()):
        what = (row.system, row.options)
        assert row.missing or seen.setdefault(row.experiment(scale, "short", 0), what) == what


def test_the_scale_has_the_sets_that_its_recipe_decodes():
    """At mini scale; those of the paper are the corpora's own."""
    run = (CONF.parent / "egs/mini/run.sh").read_text()
    sets = run.split('\ntest_sets="')[1].split('"')[0].split()
    columns = load_spec("table01", "mini").columns.values()
    assert {column.set for column in columns if column.set} <= set(sets)
    assert sum(column.set is None for column in columns) == 2
    assert [column.metric for column in columns if column.better == "lower"] == ["wer"] * 3


def test_seeds_and_variants_are_in_the_name():
    rows = load_spec("table13", "paper").rows
    assert rows["whisper"].experiment("paper", "long", 2) == "single_whisper_paper_long_s2"
    pair = rows["whisper+hubert"]
    assert pair.experiment("paper", "long", 0) == "pam-whisper-hubert_paper_long_s0"
    assert pair.options[1] == "use_encoders=[whisper,hubert]"
    assert pair.missing is None
    assert load_spec("table03", "mini").rows["all_large"].missing


def test_a_row_of_all_encoders_is_the_system_without_a_choice():
    every = load_spec("table13", "mini").rows["whisper+wavlm+wav2vec2+hubert"]
    assert every.experiment("mini", "short", 0) == "pam_mini_short_s0" and not every.options
    three = "whisper+wavlm+wav2vec2"
    assert load_spec("table13", "paper").rows[three].experiment("paper", "long", 0) == (
        "pam_paper_long_s0"
    )
    own = load_spec("table13", "mini").rows[three].experiment("mini", "short", 0)
    assert own == "pam-whisper-wavlm-wav2vec2_mini_short_s0"


def write(tmp_path: Path, **changes) -> Path:
    for part in ("systems", "scale"):
        shutil.copytree(CONF / part, tmp_path / part)
    (tmp_path / "tables").mkdir()
    shutil.copy(CONF / "tables/scales.yaml", tmp_path / "tables")
    table = {"title": "T", "rows": {"a": {"system": "pam"}, "b": {"system": "average"}}}
    (tmp_path / "tables/t.yaml").write_text(yaml.safe_dump(table | changes))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": {}}, "unknown option 'row': did you mean 'rows'"),
        ({"rows": {"a": {"system": "pm"}}}, "row a: unknown system 'pm': did you mean 'pam'"),
        ({"rows": {"a": {"sytem": "pam"}}}, "rows.a: unknown option 'sytem'"),
        ({"rows": {"a": {"system": "pam", "llm": "gpt"}}}, "row a: unknown LLM 'gpt'"),
        ({"columns": ["amy_wer"]}, "column 'amy_wer': unknown set: did you mean 'ami'"),
        ({"reference": "c"}, "unknown row 'c'"),
        ({"claims": [{"says": "x", "better": "a", "than": "z"}]}, "unknown row 'z'"),
        (
            {"claims": [{"says": "x", "better": "a", "than": "b", "in": ["avg_rank"]}]},
            "unknown column 'avg_rank'",
        ),
        ({"rows": {"m": {"mean": ["x"]}}}, "unknown row 'x'"),
    ],
)
def test_wrong_names_are_errors(tmp_path, changes, message):
    with pytest.raises(PamError) as caught:
        load_spec("t", "mini", write(tmp_path, **changes))
    assert message in str(caught.value) and "t.yaml" in str(caught.value)


def test_the_paper_s_claims_are_true_of_its_own_figures():
    """What a table holds against our results is what the paper's table shows."""
    held = 0
    for name in table_names():
        spec = load_spec(name, "paper")
        cells = load_paper()[spec.paper].cells if spec.paper else {}
        for claim in spec.claims if cells else ():
            for better, than, column in product(claim.better, claim.than, claim.columns):
                ours, theirs = cells[better].get(column), cells[than].get(column)
                if ours is not None and theirs is not None:
                    assert ours != theirs and (ours < theirs) == spec.less_is_better(column), (
                        f"{name}: {claim.says}: {better}, {than}, {column}"
                    )
                    held += 1
    assert held > 50
