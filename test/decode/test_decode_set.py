"""The decode verb on a tiny experiment: a random model, dumped features of five utterances."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from processes import locked_by_another

from pam.bin import decode
from pam.config import load_yaml
from pam.config.made import read_record
from pam.data.archive import write_archive
from pam.data.datadir import DataDir
from pam.data.digests import data_digest
from pam.data.prompts import load_all_prompts, load_prompts
from pam.data.utterances import read_utterances
from pam.decode import decoder
from pam.decode.decode_set import Part, Share, decode_part
from pam.decode.decoder import Decoder
from pam.decode.drafters import DRAFTERS
from pam.decode.exits import Exits
from pam.errors import PamError
from pam.lock import alone_at
from pam.model.build import build_model
from pam.score.items import clusters_of, read_items

TASKS = {"b-1": "snv", "B-2": "asr_clean", "a-3": "ac", "a-10": "asr_noisy", "c-4": "snv"}
FRAMES = {"b-1": 4, "B-2": 9, "a-3": 6, "a-10": 5, "c-4": 7}


@pytest.fixture
def exp(tmp_path, tiny_model, tiny_config):
    folder = tmp_path / "exp" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config))
    torch.save(tiny_model.state_dict(), folder / "model.pth")
    return folder


def text_files(**more):
    return {
        "wav.scp": {utt: f"/nowhere/{utt}.flac" for utt in TASKS},
        "text": {utt: f"answer of {utt}" for utt in TASKS},
        "utt2spk": {utt: utt for utt in TASKS},
        "utt2task": TASKS,
        "utt2num_samples": {utt: str(640 * n) for utt, n in FRAMES.items()},
        **more,
    }


def features(tiny_model, encoder):
    rng = np.random.default_rng(len(encoder))
    shape = next(s for s in tiny_model.shapes if s.name == encoder)
    width = shape.num_states * shape.dim
    for utt, frames in FRAMES.items():
        yield utt, rng.normal(size=(frames, width)).astype(np.float16)


@pytest.fixture
def data(tmp_path, tiny_model):
    """dump/raw/set, with features in dump/ENCODER/set."""
    folder = tmp_path / "dump" / "raw" / "set"
    DataDir(text_files(text_ref2={"a-3": "another answer"})).write(folder)
    for shape in tiny_model.shapes:
        dump = tmp_path / "dump" / shape.name / "set"
        dump.mkdir(parents=True)
        write_archive(dump / "feats.ark", dump / "feats.scp", features(tiny_model, shape.name))
    return folder


def run(exp, data, out, *more):
    options = ["--exp", exp, "--data", data, "--out", out, "--max_new_tokens", 6, *more]
    decode.main([str(option) for option in options])
    lines = (out / data.name / "hyp.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def count_parts(monkeypatch):
    """The calls of what decodes a part, from now on."""
    calls = []
    monkeypatch.setattr(
        "pam.decode.decode_set.decode_part", lambda *args: calls.append(args) or decode_part(*args)
    )
    return calls


def test_a_fixed_prompt_may_have_line_breaks(tmp_path):
    prompt = {"b-1": r"How many?\nA. 1\nB. 2"}
    DataDir(text_files(prompt=prompt)).write(tmp_path / "data")
    data = DataDir.read(tmp_path / "data")
    utterances = read_utterances(data, load_all_prompts(), "unseen", 0)
    found = {utterance.id: utterance for utterance in utterances}
    assert found["b-1"].prompt == "How many?\nA. 1\nB. 2" and not found["b-1"].prompt_seen
    assert found["c-4"].prompt in load_prompts("snv").unseen


def test_choices_travel_to_the_scores(exp, data, tmp_path):
    """Only items that have choices carry them; another set of choices is decoded anew."""
    own = {"A": "2", "B": "eins — 1"}
    DataDir(text_files(choices={"b-1": json.dumps(own, ensure_ascii=False)})).write(data)
    run(exp, data, tmp_path / "out")
    items = {item.id: item for item in read_items(tmp_path / "out" / data.name / "hyp.jsonl")}
    assert items["b-1"].choices == own and items["c-4"].choices is None
    digest = data_digest(data)
    DataDir(text_files(choices={"b-1": '{"A": "1", "B": "2"}'})).write(data)
    assert data_digest(data) != digest


@pytest.mark.parametrize(
    "name",
    [
        *("text", "text_ref2", "text_ref10", "prompt", "choices", "segments", "wav.scp"),
        *("utt2task", "utt2spk", "utt2num_samples"),
    ],
)
def test_what_answers_and_their_scores_come_from_is_in_the_digest(data, name):
    before = data_digest(data)
    with (data / name).open("a") as file:
        file.write("z-1 more\n")
    after = data_digest(data)
    (data / "notes").write_text("nothing that is read\n")
    assert data_digest(data) == after != before


def test_clusters_travel_to_the_scores(exp, data, tmp_path):
    """Of utt2cluster, else of utt2spk; another file is decoded anew."""
    DataDir(text_files(utt2cluster={"b-1": "meeting", "c-4": "meeting"})).write(data)
    run(exp, data, tmp_path / "out")
    items = read_items(tmp_path / "out" / data.name / "hyp.jsonl")
    speakers = DataDir.read(data)["utt2spk"]
    expected = speakers | {"b-1": "meeting", "c-4": "meeting"}
    assert clusters_of(items) == [expected[item.id] for item in items]
    digest = data_digest(data)
    DataDir(text_files(utt2cluster={"b-1": "meeting"})).write(data)
    assert data_digest(data) != digest


def test_lines_are_complete_and_in_c_order(exp, data, tmp_path):
    lines = run(exp, data, tmp_path / "out")
    assert [line["id"] for line in lines] == ["B-2", "a-10", "a-3", "b-1", "c-4"]
    for line in lines:
        assert list(line) == [
            *("id", "task", "prompt", "prompt_seen", "expert", "posterior", "hyp", "logprob"),
            *("ref", "refs", "cluster", "no_speech", "repetition"),
        ]
        assert line["no_speech"] is None and 0 <= line["repetition"] <= 1
        assert line["task"] == TASKS[line["id"]]
        assert line["prompt"] in load_prompts(line["task"]).unseen
        assert line["prompt_seen"] is False
        assert line["expert"] in ("asr_clean", "asr_noisy", "snv", "ac")
        assert 0.25 <= line["posterior"] <= 1
        assert line["ref"] == f"answer of {line['id']}"
    assert lines[2]["refs"] == ["answer of a-3", "another answer"]
    assert lines[0]["refs"] == ["answer of B-2"]


@pytest.mark.parametrize(
    "system, names",
    [
        ({"fusion": "concat", "fusion_conf": {}}, {None}),
        ({"fusion": "moe_audio"}, {None}),
        (
            {
                "router_conf": {"gate": "probability"},
                "model_conf": {"bf16": False, "routing": "predicted", "routing_loss": False},
            },
            {"expert 1", "expert 2", "expert 3", "expert 4"},
        ),
    ],
    ids=["no_router", "audio", "no_label"],
)
def test_no_task_is_named_where_no_expert_has_one(tiny_config, data, tmp_path, system, names):
    config = tiny_config | system
    torch.manual_seed(1)
    model = build_model(config)
    exp = tmp_path / "exp" / "other"
    exp.mkdir(parents=True)
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), exp / "model.pth")
    lines = run(exp, data, tmp_path / "out")
    assert {line["expert"] for line in lines} <= names
    assert all((line["posterior"] is None) == (names == {None}) for line in lines)


def test_kaldi_files_beside_it(exp, data, tmp_path):
    lines = run(exp, data, tmp_path / "out")
    assert (tmp_path / "out" / "set" / "ref").read_text().splitlines() == [
        f"{line['id']} {line['ref']}" for line in lines
    ]
    hyp = (tmp_path / "out" / "set" / "hyp").read_text().splitlines()
    assert [line.split(" ")[0] for line in hyp] == [line["id"] for line in lines]


def test_batch_size_changes_nothing(exp, data, tmp_path):
    one = run(exp, data, tmp_path / "one", "--batch_size", 1)
    five = run(exp, data, tmp_path / "five", "--batch_size", 5)
    assert [line["hyp"] for line in one] == [line["hyp"] for line in five]
    assert len({line["hyp"] for line in one}) > 1  # they do depend on the audio or the prompt


@pytest.mark.parametrize("option", [("--batch_size", 2), ("--exact", "true"), ("--seed", 1)])
def test_what_answers_depend_on_is_recorded(exp, data, tmp_path, option, monkeypatch, capsys):
    """The batch size and the type in any case; another one is another folder."""
    run(exp, data, tmp_path / "out", "--exact", "false")
    made = read_record(tmp_path / "out" / "set", "decode")["settings"]
    assert (made["batch_size"], made["exact"], made["dtype"]) == (8, False, "float32")
    calls = count_parts(monkeypatch)
    with pytest.raises(PamError, match="set was made with other settings; .*--inference_tag"):
        run(exp, data, tmp_path / "out", "--exact", "false", *option)
    assert option[0].removeprefix("--") in capsys.readouterr().err and not calls
    run(exp, data, tmp_path / "other", "--exact", "false", *option)
    assert len(calls) == 1


def test_parts_joined_are_the_whole(exp, data, tmp_path, monkeypatch):
    """Of any number of jobs, in any order; a part that is there is not decoded again."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(exp, data, whole, "--exact", "true")
    options = ["--exp", exp, "--data", data, "--out", out, "--max_new_tokens", 6, "--exact", "true"]
    jobs = [[str(o) for o in (*options, "--job", f"{n}/7")] for n in (3, 1, 7, 2, 6, 5)]
    for job in jobs:
        decode.main(job)
        assert not (out / "set" / "hyp.jsonl").exists()
    with monkeypatch.context() as patch:
        patch.setattr("pam.model.build.load_experiment", None)  # all that these jobs do is done
        for job in jobs:
            decode.main(job)
    decode.main([str(o) for o in (*options, "--job", "4/7")])
    for name in ("hyp.jsonl", "hyp", "ref"):
        assert (out / "set" / name).read_text() == (whole / "set" / name).read_text()
    for key in ("settings", "inputs"):
        records = [read_record(folder / "set", "decode") for folder in (out, whole)]
        assert records[0][key] == records[1][key]
    seconds = json.loads((out / "set" / "decode_seconds.json").read_text())
    assert seconds["audio"] == round(sum(FRAMES.values()) / 25, 2) and seconds["decode"] > 0
    assert not (out / "set" / ".parts").exists()


def test_a_job_that_was_killed_before_joining_joins_when_it_runs_again(
    exp, data, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "pam.decode.decode_set.join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        run(exp, data, tmp_path / "out")
    monkeypatch.setattr("pam.model.build.load_experiment", None)
    assert len(run(exp, data, tmp_path / "out")) == len(TASKS)


def test_a_part_has_one_program_at_a_time(exp, data, tmp_path):
    part = Share().file(tmp_path / "out" / "set")
    refused = pytest.raises(PamError, match="1-1.json: another decoding is running")
    with locked_by_another(part, "decoding", alone_at), refused:
        run(exp, data, tmp_path / "out")
    assert len(run(exp, data, tmp_path / "out")) == len(TASKS)


def test_parts_of_other_settings_are_not_joined(exp, data, tmp_path):
    options = ["--exp", exp, "--data", data, "--out", tmp_path, "--max_new_tokens", 6]
    for more in (["--job", "1/2"], ["--job", "2/3"]):
        decode.main([str(option) for option in (*options, *more)])
    with pytest.raises(PamError, match="set was made with other settings"):
        decode.main([str(option) for option in (*options, "--job", "2/2", "--seed", 1)])
    assert not (tmp_path / "set" / "hyp.jsonl").exists()
    decode.main([str(option) for option in (*options, "--job", "2/2")])
    assert (tmp_path / "set" / "hyp.jsonl").exists()


@pytest.mark.parametrize("job", ["0/2", "3/2", "1", "1/x", "-1/2"])
def test_a_job_is_one_of_some(exp, data, tmp_path, job):
    with pytest.raises(PamError, match="expected I/N"):
        run(exp, data, tmp_path / "out", f"--job={job}")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--batch_size", 0), "batch_size 0: must be at least 1"),
        (("--max_new_tokens", 0), "max_new_tokens 0: must be at least 1"),
        (("--max_tokens_per_second", "-1"), "must be 0 or more"),
        (("--max_tokens_per_second", "nan"), "must be 0 or more"),
        (("--no_repeat_ngram_size", "-1"), "must be 0 or more"),
        (("--skip_silence", "1.5"), "--skip_silence 1.5: the score is from 0 to 1"),
        (("--skip_silence", "nan"), "--skip_silence nan: the score is from 0 to 1"),
        (("--ngpu", 2), "--job 1/2 and so on, each with its own CUDA_VISIBLE_DEVICES"),
    ],
)
def test_options_that_cannot_be(exp, data, tmp_path, option, message):
    with pytest.raises(PamError, match=message):
        run(exp, data, tmp_path / "out", *option)


@pytest.mark.parametrize(
    ("key", "of_scale", "given", "used"),
    [
        ("no_repeat_ngram_size", None, None, 0),
        ("no_repeat_ngram_size", 3, None, 3),
        ("no_repeat_ngram_size", 3, 0, 0),
        ("max_new_tokens", None, None, 128),
        ("max_new_tokens", 256, None, 256),
        ("max_new_tokens", 256, 7, 7),
        ("max_tokens_per_second", None, None, 8.0),
        ("max_tokens_per_second", 12, None, 12),
        ("max_tokens_per_second", 12, 0, 0),
        ("max_tokens_per_second", 0, None, 0),
    ],
)
def test_what_limits_answers_is_a_setting_of_the_scale(exp, key, of_scale, given, used):
    config = load_yaml(exp / "config.yaml") | ({} if of_scale is None else {key: of_scale})
    options = ["--exp", "exp", "--data", "data", "--out", "out"]
    options += [] if given is None else [f"--{key}", str(given)]
    assert getattr(decode.settings_of(decode.get_parser().parse_args(options), config), key) == used


def test_answers_that_are_cut_are_counted(exp, data, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    run(exp, data, tmp_path / "all")  # random weights end no answer
    assert f"{len(TASKS)} of {len(TASKS)} answers are cut: --max_new_tokens 6," in caplog.text
    caplog.clear()
    answers = Decoder.answers
    monkeypatch.setattr(
        Decoder, "answers", lambda *given: (replace(a, complete=True) for a in answers(*given))
    )
    run(exp, data, tmp_path / "none")
    assert "answers are cut" not in caplog.text


@pytest.mark.parametrize("longest", [None, 0.2, 0.3, 0.36])
def test_clips_longer_than_those_trained_on_are_counted(exp, data, tmp_path, longest, caplog):
    """One warning a set; none where experiments do not know, or hardly anything is longer."""
    if longest is not None:
        (exp / "training_audio.json").write_text(json.dumps({"longest_seconds": longest}))
    run(exp, data, tmp_path / "out")
    warnings = [r.getMessage() for r in caplog.records if "longer than all" in r.getMessage()]
    if longest in (None, 0.36):
        assert not warnings
    else:
        counts = {0.2: "3 of 5", 0.3: "1 of 5"}
        (warning,) = warnings
        assert counts[longest] in warning and "up to 0.4 s" in warning
        assert f"training clips, up to {longest} s" in warning


def with_audio(data, tmp_path):
    """The set's wav.scp, with a silent file and files of noise that comes and goes."""
    rng, files = np.random.default_rng(0), {}
    for utt in TASKS:
        samples = rng.normal(0, 0.1, 16000) * np.sin(np.arange(16000) / 800) * (utt != "a-10")
        files[utt] = str(tmp_path / f"{utt}.flac")
        soundfile.write(files[utt], samples, 16000)
    DataDir(text_files(**{"wav.scp": files})).write(data)


def test_silence_is_skipped_if_asked_for(exp, data, tmp_path):
    """Only the silent clip's answer goes; the scores of all are in the lines."""
    with pytest.raises(PamError, match="--skip_silence: no audio of .*no such audio file"):
        run(exp, data, tmp_path / "gone", "--skip_silence", "0.5")
    with_audio(data, tmp_path)
    plain = {line["id"]: line for line in run(exp, data, tmp_path / "plain")}
    found = {line["id"]: line for line in run(exp, data, tmp_path / "out", "--skip_silence", "0.5")}
    assert plain["a-10"]["hyp"] and plain["a-10"]["no_speech"] > 0.9
    assert (found["a-10"]["hyp"], found["a-10"]["skipped"]) == ("", True)
    assert len(read_items(tmp_path / "out" / data.name / "hyp.jsonl")) == 5
    for utt in TASKS.keys() - {"a-10"}:
        assert found[utt] == plain[utt] and found[utt]["no_speech"] < 0.1


def test_a_decoding_of_an_earlier_version_stays(exp, data, tmp_path, monkeypatch):
    """Its settings have no skip_silence, its lines no scores."""
    out = tmp_path / "out"
    run(exp, data, out)
    settings = read_record(out / "set", "decode")["settings"]
    assert "skip_silence" not in settings
    calls = count_parts(monkeypatch)
    run(exp, data, out)
    assert not calls
    with pytest.raises(PamError, match="set was made with other settings"):
        run(exp, data, out, "--skip_silence", "0.5")


def test_seen_prompts_are_training_prompts(exp, data, tmp_path):
    for line in run(exp, data, tmp_path / "out", "--prompts", "seen"):
        assert line["prompt"] in load_prompts(line["task"]).train
        assert line["prompt_seen"] is True


def test_a_fixed_prompt_wins(exp, data, tmp_path):
    seen = load_prompts("snv").train[0]
    DataDir(text_files(prompt={"b-1": "What is this?", "c-4": seen})).write(data)
    lines = {line["id"]: line for line in run(exp, data, tmp_path / "out")}
    assert (lines["b-1"]["prompt"], lines["b-1"]["prompt_seen"]) == ("What is this?", False)
    assert (lines["c-4"]["prompt"], lines["c-4"]["prompt_seen"]) == (seen, True)


def test_prompts_do_not_depend_on_the_other_utterances(exp, data, tmp_path):
    before = {line["id"]: line["prompt"] for line in run(exp, data, tmp_path / "all")}
    DataDir.read(data).subset(["c-4", "a-3"]).write(data)
    after = {line["id"]: line["prompt"] for line in run(exp, data, tmp_path / "two")}
    assert after == {utt: before[utt] for utt in ("a-3", "c-4")}
    other = run(exp, data, tmp_path / "seed", "--seed", 1)
    assert {line["id"]: line["prompt"] for line in other} != after


def test_a_complete_set_is_skipped_and_other_settings_are_refused(exp, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(exp, data, out)
    calls = count_parts(monkeypatch)
    run(exp, data, out)
    assert not calls
    with pytest.raises(PamError, match="set was made with other settings"):
        run(exp, data, out, "--prompts", "seen")
    (out / "set" / "hyp.jsonl").unlink()
    run(exp, data, out)
    assert len(calls) == 1
    DataDir(text_files(prompt={"b-1": "What is this?"})).write(data)  # another input: decoded anew
    run(exp, data, out)
    assert len(calls) == 2
    shutil.rmtree(data)  # to save space
    decode.main(
        [str(o) for o in ("--exp", exp, "--data", data, "--out", out, "--max_new_tokens", 6)]
    )
    assert len(calls) == 2
    (out / "set" / "made.json").write_text("{")
    with pytest.raises(PamError, match=r"set/made\.json: not valid JSON"):
        run(exp, data, out)


def test_nothing_is_left_of_a_run_that_fails(exp, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(exp, data, out)
    DataDir(text_files(prompt={"b-1": "What is this?"})).write(data)

    def fail(*args, **kwargs):
        raise RuntimeError("killed")

    monkeypatch.setattr("pam.decode.decode_set.decode_utterances", fail)
    with pytest.raises(RuntimeError):
        run(exp, data, out)
    assert not read_record(out / "set", "decode")["complete"]


def test_a_combined_directory_brings_its_own_pointers(exp, data, tmp_path, tiny_model):
    separate = run(exp, data, tmp_path / "separate")
    combined = tmp_path / "combined" / "set"
    more = {}
    for shape in tiny_model.shapes:
        scp = (tmp_path / "dump" / shape.name / "set" / "feats.scp").read_text()
        more[f"feats_{shape.name}.scp"] = dict(line.split(" ", 1) for line in scp.splitlines())
    DataDir(text_files(**more)).write(combined)
    together = run(exp, combined, tmp_path / "together")
    assert [line["hyp"] for line in together] == [line["hyp"] for line in separate]


def test_missing_features_name_the_file(exp, data, tmp_path):
    scp = tmp_path / "dump" / "second" / "set" / "feats.scp"
    lines = scp.read_text().splitlines(keepends=True)
    scp.write_text("".join(lines[1:]))
    with pytest.raises(PamError, match=r"second/set/feats\.scp: 1 utterances.*B-2"):
        run(exp, data, tmp_path / "out")
    scp.unlink()
    with pytest.raises(PamError, match="no features of second"):
        run(exp, data, tmp_path / "out")


def test_a_folder_without_a_model(data, tmp_path):
    with pytest.raises(PamError, match=r"model\.pth: no trained model"):
        run(tmp_path / "exp" / "other", data, tmp_path / "out")


def test_a_checkpoint_of_another_system(exp, data, tmp_path):
    weights = torch.load(exp / "model.pth", weights_only=True)
    weights = {name: value for name, value in weights.items() if not name.startswith("router")}
    torch.save(weights, exp / "model.pth")
    with pytest.raises(PamError, match=r"model\.pth does not fit .*config\.yaml") as caught:
        run(exp, data, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_the_longest_clips_come_first(exp, data, tmp_path, monkeypatch):
    """Too little memory shows at once."""
    seen = []
    plain = Decoder.plain
    monkeypatch.setattr(
        Decoder, "plain", lambda self, batch: seen.append([*batch]) or plain(self, batch)
    )
    run(exp, data, tmp_path / "out", "--exact", "false", "--batch_size", 2)
    assert [[request.key.id for request in batch] for batch in seen] == [
        ["B-2", "c-4"],
        ["a-3", "a-10"],
        ["b-1"],
    ]


@pytest.mark.parametrize("exact", ["true", "false"])
@pytest.mark.parametrize("cut", [0, 9])
def test_a_killed_job_goes_on(exp, data, tmp_path, monkeypatch, exact, cut):
    """With the answers that are there; `cut` bytes of the last line were not written."""
    options = ["--exact", exact, "--batch_size", 2]
    whole = run(exp, data, tmp_path / "whole", *options)
    out = tmp_path / "out"
    append, counts = Part.append, []

    def killed(self, line, seconds):
        if len(self.lines) == 3:
            raise KeyboardInterrupt
        append(self, line, seconds)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Part, "append", killed)
        run(exp, data, out, *options)
    part = out / "set/.parts/1-1.json"
    assert len(part.read_text().splitlines()) == 4
    if cut:
        part.write_bytes(part.read_bytes()[:-cut])
    monkeypatch.setattr(Part, "append", lambda *args: counts.append(1) or append(*args))
    assert run(exp, data, out, *options) == whole
    assert len(counts) < len(TASKS)


def test_a_drafter_changes_no_answer(exp, data, tmp_path):
    plain = run(exp, data, tmp_path / "plain")
    assert run(exp, data, tmp_path / "verify", "--early_exit", "verify") == plain
    for name in DRAFTERS.names():
        assert run(exp, data, tmp_path / name, "--drafter", name) == plain


@pytest.mark.parametrize(
    ("search", "options", "expected"),
    [
        ("beam_search", "--beam 3", [3]),
        ("Sampling", "--temperature 0.7 --top_p 0.9 --seed 5", [0.7, 0.9, 5]),
        (
            "EarlyExit",
            "--early_exit margin --threshold 0.4 --exit_layer 1 --exit_stride 2 --exit_decay 3 "
            "--exit_cache copy",
            [Exits("margin", threshold=0.4, first=1, stride=2, decay=3.0, cache="copy")],
        ),
    ],
)
def test_options_reach_the_search(exp, data, tmp_path, monkeypatch, search, options, expected):
    """Each search itself is tested elsewhere."""
    plain, calls = getattr(decoder, search), []
    monkeypatch.setattr(decoder, search, lambda *args: calls.append(args) or plain(*args))
    assert len(run(exp, data, tmp_path / "out", *options.split())) == len(TASKS)
    for args in calls:  # beam search is called once for each length of rows
        assert [value for value in args if type(value) in (int, float, Exits)] == expected
    assert calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drafter", "ctc", "--exact", "false"], "--drafter ctc: needs --exact true"),
        (["--exit_layer", 1], "--exit_layer 1: needs --early_exit or --drafter exit_layer"),
        (["--threshold", 0.5], "--threshold 0.5: needs --early_exit"),
        (["--exit_cache", "copy"], "--exit_cache copy: needs --early_exit"),
        (["--early_exit", "margin", "--drafter", "ctc"], "ctc: cannot be used with --early_exit"),
        (["--beam", 4, "--temperature", 0.5], "--beam 4: cannot be used with --temperature 0.5"),
        (["--beam", 4, "--exact", "false"], "--beam 4: needs --exact true"),
        (["--beam", 0], "--beam 0: must be 1 to 16"),
        (["--temperature", -1], "--temperature -1.0: must be 0 or more"),
        (["--temperature", "nan"], "--temperature nan: must be 0 or more"),
        (["--top_p", 0.5], "--top_p 0.5: needs --temperature"),
        (["--top_p", 0], "--top_p 0.0: must be above 0"),
        (["--early_exit", "margin", "--exact", "false"], "margin: needs --exact true"),
        (["--early_exit", "margn"], "did you mean 'margin'"),
        (["--early_exit", "margin", "--threshold", 2], "threshold 2: must be 0 to 1"),
        (["--early_exit", "gate"], "this experiment has no trained gate"),
        (["--drafter", "exit_layer", "--exit_layer", 2], "exit_layer 2: must be 1 to 1"),
    ],
)
def test_options_that_do_not_fit_each_other(exp, data, tmp_path, options, message):
    with pytest.raises(PamError, match=message):
        run(exp, data, tmp_path / "out", *options)
