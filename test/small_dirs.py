"""Small data directories that several tests make, damage and mend."""

from hypothesis import strategies as st

from pam.data.datadir import DataDir, fix, validate
from pam.data.tasks import task_names

UTTS = ["ann-1", "ann-2", "bob-1"]


def text_files(utts=tuple(UTTS)):
    return {
        "wav.scp": {utt: f"/audio/{utt}.wav" for utt in utts},
        "text": {utt: f"words of {utt}" for utt in utts},
        "utt2spk": {utt: utt.split("-")[0] for utt in utts},
        "utt2task": dict.fromkeys(utts, "asr_clean"),
    }


def edit(folder, file, old, new):
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def messages(folder, warnings=False, **options):
    found = [p for p in validate(folder, **options) if p.warning == warnings]
    return [str(problem).removeprefix(f"{folder}/") for problem in found]


def fixed(folder, **options):
    """The utterances left after fixing; the directory is valid then, and a second fix is idle."""
    fix(folder, **options)
    assert messages(folder, **options) == []
    assert all(problem.warning for problem in fix(folder, **options))
    return DataDir.read(folder).utterances


def segmented():
    more = {
        "wav.scp": {"rec1": "/audio/rec1.wav", "rec2": "/audio/rec2.wav"},
        "segments": {"ann-1": "rec1 0.0 1.5", "ann-2": "rec1 1.5 3", "bob-1": "rec2 0 2"},
    }
    return text_files() | more


IDS = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Z"], exclude_characters="/"),
    min_size=1,
    max_size=12,
)
VALUES = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Z"], include_characters=" "),
    min_size=1,
    max_size=12,
).map(lambda value: value.strip() or "-")


@st.composite
def data_dirs(draw):
    utts = draw(st.lists(IDS, min_size=1, max_size=6, unique=True))
    each = {"text": VALUES, "utt2spk": IDS, "utt2task": st.sampled_from(task_names())}
    made = {name: {utt: draw(values) for utt in utts} for name, values in each.items()}
    recordings = utts
    if draw(st.booleans()):
        recordings = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
        named = {utt: draw(st.sampled_from(recordings)) for utt in utts}
        recordings = sorted(set(named.values()))
        made["segments"] = {utt: f"{recording} 0.5 1e1" for utt, recording in named.items()}
    made["wav.scp"] = {recording: f"/audio/{draw(VALUES)}.wav" for recording in recordings}
    for name in draw(
        st.sets(st.sampled_from(["prompt", "text_ref2", "text_ref10", "text_warmup"]))
    ):
        some = draw(st.sets(st.sampled_from(utts), min_size=1))
        made[name] = {utt: draw(VALUES) for utt in some}
    for name in draw(st.sets(st.sampled_from(["utt2num_samples", "utt2num_frames"]))):
        made[name] = {utt: str(draw(st.integers(1, 10**9))) for utt in utts}
    return DataDir(made)
