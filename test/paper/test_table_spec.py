"""conf/tables: what they name exists, in the project and in the paper; wrong names are errors."""

import shutil
from copy import deepcopy
from itertools import product
from pathlib import Path

import pytest
import yaml

from pam.config import load_yaml
from pam.errors import PamError
from pam.paper.check import NEEDS
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
    assert load_spec("table02", "paper").added == {"hubert": "facebook/hubert-base-ls960"}


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
    for part in ("systems", "scale", "tables"):
        shutil.copytree(CONF / part, tmp_path / part)
    table = {"title": "T", "rows": {"a": {"system": "pam"}, "b": {"system": "average"}}}
    (tmp_path / "tables/t.yaml").write_text(yaml.safe_dump(table | changes))
    return tmp_path


DELTA = {"title": "D", "over": ["a"], "rows": ["b"]}


def row(**changes) -> dict:
    return {"rows": {"a": {"system": "pam"} | changes, "b": {"system": "average"}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": {}}, "unknown option 'row': did you mean 'rows'"),
        ({"rows": {"a": {"system": "pm"}}}, "row a: unknown system 'pm': did you mean 'pam'"),
        ({"rows": {"a": {"sytem": "pam"}}}, "rows.a: unknown option 'sytem'"),
        ({"rows": {"a": {"system": "pam", "llm": "gpt"}}}, "row a: unknown LLM 'gpt'"),
        ({"columns": ["amy_wer"]}, "column 'amy_wer': unknown set 'amy': did you mean 'ami'"),
        ({"reference": "c"}, "unknown row 'c'"),
        ({"claims": [{"says": "x", "better": "a", "than": "z"}]}, "unknown row 'z'"),
        (
            {"claims": [{"says": "x", "better": "a", "than": "b", "in": ["avg_rank"]}]},
            "unknown column 'avg_rank'",
        ),
        ({"rows": {"m": {"mean": ["x"]}}}, "row m: unknown row 'x'"),
        ({"rows": {"m": {"mean": ["m"]}}}, "row m: mean of 'm': it must be earlier"),
        (
            {"rows": {"a": {"best": ["m"]}, "m": {"mean": ["b"]}, "b": {"system": "pam"}}},
            "row a: best of 'm': it must be earlier",
        ),
        ({"rows": {"m": {"mean": []}}}, "rows.m.mean: []: expected a list of one or more names"),
        ({"rows_of": "table02"}, "row whisper_x: unknown row 'whisper+wavlm'"),
        ({"rows_of": "../tables/table02"}, "rows_of: unknown table '../tables/table02'"),
        ({"rows_of": "t"}, "row 'a' (rows_of has it too): two have this name: rename one"),
        (
            {"rows_of": "table01", "rows": {"m": {"mean": ["pam"]}}, "rank": {"r": "six"}}
            | {"claims": [{"says": "x", "better": "m", "than": "pam", "in": ["r"]}]},
            "row 'pam' has no rank: ranks are of this table's own rows",
        ),
        (
            {"rows_of": "table01", "rows": {"m": {"mean": ["pam"]}}, "rank": {"r": "six"}}
            | {"reference": "pam"},
            "row 'pam' has no rank",
        ),
        ({"paper": "zz"}, "paper: unknown table 'zz'"),
        ({"delta": DELTA | {"paper": "table_1_dela"}}, "delta.paper: unknown table 'table_1_dela'"),
        ({"delta": {}}, "delta: title, over, rows is missing"),
        ({"delta": DELTA | {"over": []}}, "delta.over: []: expected a list of one or more names"),
        ({"delta": DELTA | {"rows": ["c"]}}, "unknown row 'c'"),
        ({"claims": [{"says": "x", "better": "a"}]}, "claim 1: than is missing"),
        ({"claims": [{}]}, "claim 1: says, better, than is missing"),
        ({"claims": [{"says": "x", "better": [], "than": "b"}]}, "claims 1.better: []: expected"),
        ({"kind": "zz"}, "kind: unknown kind of table 'zz'"),
        ({"kind": "data"}, "kind data: paper, tasks is missing"),
        ({"kind": "data", "paper": "table_1", "tasks": {"snv": "ami"}}, "has no columns hours and"),
        ({"kind": "data", "paper": "table_5", "tasks": {"snv": "z"}}, "tasks.snv: unknown row 'z'"),
        ({"kind": "prompts", "prompts": []}, "prompts: []: expected a list of one or more names"),
        ({"kind": "similarity"}, "kind similarity: paper is missing"),
        ({"rows": {}}, "kind systems: rows is missing"),
        ({"rows": {1: {"system": "pam"}}}, "rows: the name 1 is not a text: put it in quotes"),
        ({"rank": {1: "six"}}, "rank: the name 1 is not a text: put it in quotes"),
        ({"rank": {"x": "seven"}}, "rank.x: 'seven': expected six or a list of one or more"),
        ({"averages": {"ami_wer": ["ami_wer"]}}, "column 'ami_wer': two have this name"),
        ({"averages": {"x": ["ami_wer"]}, "rank": {"x": "six"}}, "column 'x': two have this name"),
        ({"columns": ["ami_foo"]}, "column 'ami_foo': unknown metric 'foo': known: accuracy"),
        ({"columns": ["ami_caption"]}, "column 'ami_caption': unknown metric 'caption'"),
        (row(encoders=[{"a": 1}]), "rows.a.encoders: [{'a': 1}]: expected a list of one or more"),
        (row(encoders=["wisper"]), "row a: use_encoders: unknown encoder 'wisper': did you mean"),
        (row(encoders=["wavlm_large", "wisper"]), "row a: use_encoders: unknown encoder 'wisper'"),
        (row(set=["seed=1"]), "row a: set changes the system: name it, with variant"),
        (row(set=["seed"], variant="x"), "row a: option 'seed': expected KEY=VALUE without white"),
        (row(set=["a=b c"], variant="x"), "row a: option 'a=b c': expected KEY=VALUE without"),
        (
            row(set=["dev_utts=1"], variant="x/y"),
            "row a: 'x/y': it would be in the name of a folder",
        ),
        (row(set=["warmup=2"], variant="x"), "row a: --set: warmup: 2: expected"),
        (row(set=["optim.lr=1"], variant="x"), "row a: --set"),
        (row(variant=".."), "row a: '..': it would be in the name of a folder"),
        (
            {"rows": {"a": {"system": "pam"}, "b": {"system": "pam"}}},
            "rows a and b are the same experiment at the scale mini: remove one, or give it other",
        ),
        (
            {
                "rows": {
                    "a": {"system": "pam", "set": ["dev_utts=1"], "variant": "v"},
                    "b": {"system": "pam", "set": ["dev_utts=2"], "variant": "v"},
                }
            },
            "rows a and b: their experiments would have the same name",
        ),
    ],
)
def test_wrong_tables_are_errors(tmp_path, changes, message):
    with pytest.raises(PamError) as caught:
        load_spec("t", "mini", write(tmp_path, **changes))
    assert message in str(caught.value) and "t.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_kind_has_its_needs():
    assert set(NEEDS) == set(KINDS.names())


def test_the_longest_metric_counts(tmp_path):
    columns = load_spec("t", "mini", write(tmp_path, columns=["audiocaps_meteor_1.5"])).columns
    assert [(c.set, c.metric) for c in columns.values()] == [("ac_test", "meteor_1.5")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": None}, "mini: sets: None: expected a section of options"),
        ({"sets": {"ami": {"mising": "x"}}}, "mini: sets.ami: {'mising': 'x'}: expected a set, or"),
        ({"sets": {"ami": {}}}, "sets.ami: {}: expected a set, or {missing: REASON}"),
        ({"sets": {"ami": [1]}}, "sets.ami: [1]: expected a set"),
        ({"sets": {"ami": ""}}, "sets.ami: '': expected a set"),
        ({"sets": {"ami": {"missing": " "}}}, "sets.ami: {'missing': ' '}: expected a set"),
        ({"encoders": {"a": {"missing": ""}}}, "encoders.a: {'missing': ''}: expected an encoder"),
        ({"encoders": {"a": {"famly": "x"}}}, "mini.encoders.a: unknown option 'famly'"),
        ({"encoders": {"a": {"family": "whisper"}}}, "mini.encoders.a: path is missing"),
        ({"llms": {"a": {}}}, "llms.a: {}: expected a model, or {missing: REASON}"),
        ({"llms": {"a": {"missing": "x", "more": "y"}}}, "llms.a: {'missing': 'x', 'more': 'y'}: "),
    ],
)
def test_wrong_scales_are_errors(tmp_path, changes, message):
    conf = write(tmp_path)
    file = conf / "tables/scales.yaml"
    scales = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(scales | {"mini": scales["mini"] | changes}))
    with pytest.raises(PamError) as caught:
        load_spec("t", "mini", conf)
    assert message in str(caught.value) and "scales.yaml: mini" in str(caught.value)


def test_a_scale_needs_sets_alone(tmp_path):
    conf = write(tmp_path)
    file = conf / "tables/scales.yaml"
    sets = yaml.safe_load(file.read_text())["mini"]["sets"]
    file.write_text(yaml.safe_dump({"mini": {"sets": sets}, 1: {}}))
    assert not load_spec("t", "mini", conf).paper_sets
    file.write_text(yaml.safe_dump({"mini": {"llms": {}}, "other": {"sets": sets}}))
    with pytest.raises(PamError, match="scales.yaml: mini: sets is missing"):
        load_spec("t", "mini", conf)
    with pytest.raises(PamError, match="scales.yaml: has no scale 'paper'"):
        load_spec("t", "paper", conf)


def test_a_path_with_white_space_names_its_row(tmp_path):
    conf = write(tmp_path, **row(llm="big"))
    file = conf / "tables/scales.yaml"
    scales = yaml.safe_load(file.read_text())
    scales["mini"]["llms"]["big"] = "/my models/llm"
    file.write_text(yaml.safe_dump(scales))
    with pytest.raises(PamError, match="row a: option 'llm_conf.path=/my models/llm': expected"):
        load_spec("t", "mini", conf)


@pytest.mark.parametrize("text", ["4", "0", "", "9" * 5000, "tabel01", "٣", "all_"])
def test_unknown_tables_are_errors(text):
    with pytest.raises(PamError, match="--table .*known: beyond"):
        table_name(text)


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
