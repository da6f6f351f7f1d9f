"""How long the clips are that an experiment was trained on."""

import pytest

from pam.data.longest import RECORD, beyond, is_beyond, read_longest, record_longest
from pam.data.scp import write_text_file


def test_what_is_recorded_is_read(tmp_path):
    write_text_file(tmp_path / "utt2num_frames", {"a": "25", "b": "198", "c": "9"})
    record_longest(tmp_path, tmp_path)
    assert read_longest(tmp_path) == 7.92


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"longest_seconds": null}'])
def test_of_an_older_experiment_nothing_is_known(tmp_path, content):
    if content is not None:
        (tmp_path / RECORD).write_text(content)
    assert read_longest(tmp_path) is None
    assert not is_beyond(1e9, None)


def test_hardly_longer_is_not_longer():
    assert not is_beyond(8.3, 8.0) and is_beyond(8.5, 8.0)
    assert beyond("a.wav", 60.0, 7.9).startswith("a.wav: 60.0 s of audio, but the model was")
