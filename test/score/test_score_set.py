"""The score verb on decoded sets written by hand."""

import json
import re
import sys
from pathlib import Path

import pytest

from pam.bin import score as score_verb
from pam.errors import PamError
from pam.score import CAPTION_METRICS, METRICS, caption, metric_names
from pam.score.clusters import doubt
from pam.score.items import read_items
from pam.score.metric import Metric, metric_called
from pam.score.score_set import Options, score_set
from pam.score.utterances import Statistics, read_clusters, read_utterances


def line(utt, task, ref, hyp, **more):
    entry = {
        "id": utt,
        "task": task,
        "prompt": "p",
        "prompt_seen": False,
        "expert": task,
        "posterior": 0.9,
        "hyp": hyp,
        "ref": ref,
        "refs": [ref],
    }
    return json.dumps(entry | more)


@pytest.fixture
def decoded(tmp_path):
    """exp/NAME/TAG with a set of recognition and one of speaker counts."""
    tag = tmp_path / "exp" / "tiny" / "greedy_unseen"
    write(
        tag / "clean",
        line("u1", "asr_clean", "a b c", "a x c"),
        line("u2", "asr_clean", "d", "d", expert="snv"),
    )
    write(tag / "count", line("u1", "snv", "two", "2"), line("u2", "snv", "one", "?"))
    return tag


def write(folder, *lines):
    folder.mkdir(parents=True)
    (folder / "hyp.jsonl").write_text("".join(f"{text}\n" for text in lines))


def read(path):
    return json.loads(path.read_text())


def test_every_metric_of_a_task_is_in_the_registry():
    from pam.data.tasks import TASKS

    assert {task.metric for task in TASKS.values()} <= set(METRICS.names())
    for registry in (METRICS, CAPTION_METRICS):
        for name in registry.names():
            metric = registry.get(name)()
            assert isinstance(metric, Metric) and type(metric_called(metric.name)) is type(metric)
            assert metric.name == name or name == "caption"
            assert metric.title and metric.digits in (2, 3)
    assert not metric_called("wer").higher_is_better and metric_called("spice").higher_is_better
    assert metric_called("wer").label == "WER %" and metric_called("cider").label == "CIDEr"
    assert "Java" in metric_called("meteor_1.5").needs and not metric_called("wer").needs
    unknown = metric_called("bleu")
    assert (unknown.label, unknown.digits, unknown.remarks({})) == ("bleu", 2, [])


def test_every_set_gets_its_score(decoded):
    score_verb.main(["--decode_dir", str(decoded), "--router", "no"])
    clean, count = read(decoded / "clean/score.json"), read(decoded / "count/score.json")
    assert (clean["set"], clean["task"], clean["metric"], clean["value"]) == (
        ("clean", "asr_clean", "wer", 25.0)
    )
    assert (clean["errors"], clean["ref_words"], clean["count"], clean["hits"]) == (1, 4, 2, 3)
    assert clean["prompts"] == {"seen": 0, "unseen": 2, "routed_right": 1}
    assert (count["metric"], count["value"], count["parse_failures"]) == ("accuracy", 50.0, 1)
    for score in (clean, count):
        assert {"set", "task", "metric", "value", "count", "errors", "ci95"} <= score.keys()
        assert score["ci95"][0] <= score["value"] <= score["ci95"][1]
    alignment = (decoded / "clean/wer_alignment.txt").read_text()
    assert "HYP: a x c" in alignment
    assert not (decoded / "count/wer_alignment.txt").exists()


def test_scoring_twice_gives_the_same_bytes(decoded):
    score_verb.main(["--decode_dir", str(decoded), "--router", "no"])
    first = (decoded / "clean/score.json").read_bytes()
    score_verb.main(["--decode_dir", str(decoded), "--router", "no"])
    assert (decoded / "clean/score.json").read_bytes() == first


def test_a_combined_set_is_scored_by_task(tmp_path):
    folder = tmp_path / "mixed"
    write(folder, line("u1", "asr_clean", "a", "a"), line("u2", "snv", "two", "1"))
    results = score_set(folder, Options())
    assert [result["set"] for result in results] == ["mixed/asr_clean", "mixed/snv"]
    assert read(folder / "score_snv.json")["value"] == 0
    assert read(folder / "score_asr_clean.json")["value"] == 0
    assert not (folder / "score.json").exists()
    assert (folder / "utterances_snv.json").is_file()


def test_captions_come_with_the_baseline_of_the_training_text(tmp_path, monkeypatch):
    monkeypatch.setattr(caption, "meteor", lambda refs, hyp: float(hyp in refs))
    train = tmp_path / "train"
    train.mkdir()
    (train / "text").write_text("a rain\nb rain\nc a dog\nd words words\ne words words\nf words\n")
    (train / "utt2task").write_text("a ac\nb ac\nc ac\nd asr_clean\ne asr_clean\nf asr_clean\n")
    tag = tmp_path / "exp" / "tag"
    write(tag / "sounds", line("u1", "ac", "rain", "a dog"), line("u2", "ac", "a dog", "a dog"))
    score_verb.main(["--decode_dir", str(tag), "--router", "no", "--train_dir", str(train)])
    score = read(tag / "sounds" / "score.json")
    assert score["value"] == 50
    assert score["baseline"]["value"] == 50
    assert score["baseline"]["what"].endswith(": rain")
    # The training directory is known to the experiment, too.
    (tmp_path / "exp" / "train").mkdir()
    (tmp_path / "exp" / "train" / "config.yaml").write_text(f"train_dir: {train}\n")
    assert score_verb.train_captions(score_verb.trained_on(tmp_path / "exp")) == (
        ["rain", "rain", "a dog"]
    )


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """A decoded set of captions, and three metrics: one counts, one lacks a model."""
    monkeypatch.setattr(caption, "meteor", lambda refs, hyp: float(hyp in refs))
    metrics = {
        "meteor": "pam.score.caption:Meteor",
        "length": "metrics_of_a_test:Length",
        "broken": "metrics_of_a_test:Broken",
    }
    monkeypatch.setattr(CAPTION_METRICS, "entries", metrics)

    class Length(Metric):
        name = title = "length"

        def measure(self, items, sbert=""):
            return Statistics([len(item.hyp) for item in items], scale=10.0), {"model": sbert}

    class Broken(Metric):
        name = title = "broken"

        def measure(self, items, sbert=""):
            raise PamError("broken needs a part: fetch it")

    module = type(sys)("metrics_of_a_test")
    module.Length, module.Broken = Length, Broken
    monkeypatch.setitem(sys.modules, "metrics_of_a_test", module)
    tag = tmp_path / "exp" / "tag"
    write(
        tag / "sounds",
        line("u1", "ac", "rain", "dogs", refs=["rain", "it rains"]),
        line("u2", "ac", "dog", "dog"),
    )
    return tag


def test_further_metrics_of_captions(sounds):
    score_verb.main(
        [
            "--decode_dir",
            str(sounds),
            "--router",
            "no",
            "--metrics",
            "meteor,length",
            "--sbert",
            "m",
        ]
    )
    score = read(sounds / "sounds" / "score.json")
    assert (score["metric"], score["value"]) == ("meteor", 50)
    length = score["metrics"]["length"]
    assert (length["value"], length["count"], length["references"]) == (35, 2, 3)
    low, high = length["ci95"]  # of two utterances: very wide
    assert low < 30 and high > 40
    assert length["model"] == "m"
    ids, statistics = read_utterances(sounds / "sounds" / "utterances.json")
    assert ids == ["u1", "u2"]
    assert statistics == {
        "meteor": Statistics([0.0, 1.0], scale=100.0),
        "length": Statistics([4, 3], scale=10.0),
    }


def test_a_metric_that_lacks_a_part_leaves_the_others_standing(sounds, caplog):
    with pytest.raises(PamError, match=r"not measured: broken \(see above\); all other"):
        score_verb.main(
            ["--decode_dir", str(sounds), "--router", "no", "--metrics", "broken,length"]
        )
    assert "broken is not measured: broken needs a part: fetch it" in caplog.text
    tolerant = ["--decode_dir", str(sounds), "--router", "no", "--metrics", "broken", "--go_on"]
    assert score_verb.main(tolerant) == 0
    score = read(sounds / "sounds" / "score.json")
    assert score["metrics"]["broken"] == {"missing": "broken needs a part: fetch it"}
    assert (score["value"], score["metrics"]["length"]["value"]) == (50, 35)
    assert set(read_utterances(sounds / "sounds" / "utterances.json")[1]) == {"meteor", "length"}


def test_only_meteor_unless_more_is_asked_for(sounds):
    score_verb.main(["--decode_dir", str(sounds), "--router", "no"])
    assert "metrics" not in read(sounds / "sounds" / "score.json")


def test_an_unknown_metric_is_refused_before_anything_is_scored(sounds):
    with pytest.raises(PamError, match="unknown metric of captions 'lenght'.*'length'"):
        score_verb.main(["--decode_dir", str(sounds), "--metrics", "lenght"])
    assert not (sounds / "sounds" / "score.json").exists()


def test_the_recipes_know_every_metric():
    utils = Path(__file__).resolve().parents[2] / "utils"
    metric_names(",".join(CAPTION_METRICS.names()))  # what pam/bin/recipe.py checks them with
    described = re.search(
        r"^metrics=meteor .*commas: (.*)", (utils / "options.sh").read_text(), re.M
    )
    assert sorted(described[1].split(", ")) == CAPTION_METRICS.names()
    for name in CAPTION_METRICS.names():
        assert callable(CAPTION_METRICS.get(name))


def test_statistics_of_utterances_give_the_scores(decoded):
    score_verb.main(["--decode_dir", str(decoded), "--router", "no"])
    for name in ("clean", "count"):
        score = read(decoded / name / "score.json")
        ids, statistics = read_utterances(decoded / name / "utterances.json")
        assert ids == ["u1", "u2"]
        assert statistics[score["metric"]].value == score["value"]
        assert "statistics" not in score
    assert read_utterances(decoded / "clean/utterances.json")[1]["wer_whisper"].errors


def test_nothing_decoded(tmp_path):
    with pytest.raises(PamError, match="run the decode stage"):
        score_verb.main(["--decode_dir", str(tmp_path)])
    with pytest.raises(PamError, match=r"missing/hyp\.jsonl: no such file"):
        score_verb.main(["--decode_dir", str(tmp_path), "--sets", "missing"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no utterance"),
        (line("u", "snv", "1", "1")[:-5] + "\n", "hyp.jsonl:1: not a decoded utterance"),
        ('{"id": "u"}\n', "hyp.jsonl:1: not a decoded utterance"),
        ("[1]\n", "hyp.jsonl:1: not a decoded utterance"),
        (2 * (line("u", "snv", "1", "1") + "\n"), "twice"),
    ],
)
def test_damaged_hypotheses(tmp_path, content, message):
    (tmp_path / "hyp.jsonl").write_text(content)
    with pytest.raises(PamError, match=message):
        read_items(tmp_path / "hyp.jsonl")


def test_an_unknown_task(tmp_path):
    write(tmp_path / "set", line("u", "asr_clear", "a", "a"))
    with pytest.raises(PamError, match="asr_clear.*did you mean 'asr_clean'"):
        score_set(tmp_path / "set", Options())


def test_what_was_measured_before_is_kept(sounds):
    """Asking for less forgets no metric, and does not measure it by another model."""
    argv = ["--decode_dir", str(sounds), "--router", "no"]
    score_verb.main([*argv, "--metrics", "length", "--sbert", "first"])
    items = (sounds / "sounds/hyp.jsonl").read_text().replace('"dogs"', '"doggies"')
    (sounds / "sounds/hyp.jsonl").write_text(items)
    score_verb.main([*argv, "--sbert", "second"])
    score = read(sounds / "sounds" / "score.json")
    assert (score["metrics"]["length"]["model"], score["metrics"]["length"]["value"]) == (
        "first",
        50,  # of the new answers
    )
    assert set(read_utterances(sounds / "sounds" / "utterances.json")[1]) == {"meteor", "length"}
    score_verb.main([*argv, "--metrics", "length", "--sbert", "second"])
    assert read(sounds / "sounds" / "score.json")["metrics"]["length"]["model"] == "second"


def test_clusters_of_the_utterances_reach_the_interval_and_the_files(tmp_path):
    """12 speakers, each either always right or always wrong: that is 12 draws, not 60."""
    tag, lines = tmp_path / "exp/tag", []
    for number in range(60):
        speaker = number % 12
        answer = "two" if speaker < 8 else "one"
        lines.append(line(f"u{number:02d}", "snv", answer, "two", cluster=f"s{speaker:02d}"))
    write(tag / "known", *lines)
    unknown = [json.dumps({**json.loads(text), "cluster": None}) for text in lines]
    write(tag / "unknown", *unknown)
    write(tag / "few", *(text.replace('"s1', '"s0').replace('"s09', '"s08') for text in lines))
    score_verb.main(["--decode_dir", str(tag), "--router", "no"])
    known, not_known, few = (
        read(tag / name / "score.json") for name in ("known", "unknown", "few")
    )
    assert known["clusters"] == {
        **{"count": 12, "effective": 12.0, "few": False},
        "resampled": "clusters",
    }
    assert not_known["clusters"] is None and few["clusters"]["few"]
    assert few["ci95"] == not_known["ci95"]
    width, alone = (score["ci95"][1] - score["ci95"][0] for score in (known, not_known))
    assert width > 2 * alone
    assert read_clusters(tag / "known" / "utterances.json") == [f"s{n % 12:02d}" for n in range(60)]
    assert read_clusters(tag / "unknown" / "utterances.json") is None
    assert doubt(known) == doubt({}) == ""
    assert doubt(few) == ", for these 9 clusters only"
    del few["clusters"]["resampled"]  # as it was before utterances were resampled
    assert doubt(few) == ", unreliable: 9 clusters were resampled"
    few["clusters"] |= {"count": 2, "effective": 1.2}
    assert doubt(few) == ", for these 2 clusters only"
    assert doubt(not_known) == ", clusters not known"


def test_every_metric_resamples_clusters(tmp_path, monkeypatch):
    from pam.score.items import Item
    from pam.score.score_set import Options, score_items

    monkeypatch.setattr(caption, "meteor", lambda refs, hyp: float(hyp in refs))
    for task, right, wrong in (
        ("asr_clean", "a b", "a c"),
        ("ac", "rain", "dog"),
        ("snv", "1", "2"),
    ):
        widths = []
        for clusters in (range(60), [n % 12 for n in range(60)]):
            items = [
                Item(f"{n}", task, right if n % 12 < 8 else wrong, right, cluster=str(cluster))
                for n, cluster in enumerate(clusters)
            ]
            result, _ = score_items(task, items, Options())
            entries = [result, *([result["whisper"]] if "whisper" in result else [])]
            widths.append([entry["ci95"][1] - entry["ci95"][0] for entry in entries])
        assert all(b > 2 * a for a, b in zip(*widths, strict=True)), task
