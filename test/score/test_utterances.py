import numpy as np
import pytest

from pam.errors import PamError
from pam.score.significance import matched_pairs, paired_bootstrap
from pam.score.utterances import (
    Statistics,
    compare,
    read_clusters,
    read_utterances,
    utterances_file,
    write_utterances,
)

WER = Statistics([1, 0, 2], [4, 3, 5], scale=100.0, errors=True)
CIDER = Statistics([0.5, 1.5, 0.1])


def test_values():
    assert WER.value == 25.0
    assert CIDER.value == pytest.approx(0.7)


def test_written_and_read(tmp_path):
    path = utterances_file(tmp_path / "score_ac.json")
    assert path.name == "utterances_ac.json"
    write_utterances(path, ["a", "b", "c"], {"wer": WER, "cider": CIDER})
    assert read_utterances(path) == (["a", "b", "c"], {"wer": WER, "cider": CIDER})


def test_clusters_are_written_and_read(tmp_path):
    path = tmp_path / "utterances.json"
    write_utterances(path, ["a", "b", "c"], {"wer": WER}, ["x", "y", "x"])
    assert read_clusters(path) == ["x", "y", "x"]
    write_utterances(path, ["a", "b", "c"], {"wer": WER})
    assert read_clusters(path) is None
    path.write_text('{"ids": ["a"], "metrics": {}}')  # as it was written before clusters
    assert read_clusters(path) is None


def test_compare_resamples_clusters():
    first, second = np.random.default_rng(0).integers(0, 4, (2, 24)).tolist()
    words, clusters = [5] * 24, [f"{n // 2:02d}" for n in range(24)]
    pair = (Statistics(errors, words, scale=100.0, errors=True) for errors in (first, second))
    result = compare(*pair, clusters, seed=2)
    assert result.pop("matched_pairs") == matched_pairs(first, second, clusters)
    assert result.pop("only") is None
    assert result == paired_bootstrap(first, second, words, clusters=clusters, seed=2)
    assert result != paired_bootstrap(first, second, words, seed=2)


@pytest.mark.parametrize("content", ["{", "[]", '{"ids": []}', '{"ids": [], "metrics": {"a": {}}}'])
def test_damaged_files(tmp_path, content):
    with pytest.raises(PamError, match="no such|No such"):
        read_utterances(tmp_path / "utterances.json")
    (tmp_path / "utterances.json").write_text(content)
    with pytest.raises(PamError, match=r"utterances\.json: .*run the score stage again"):
        read_utterances(tmp_path / "utterances.json")


def test_compare_uses_both_tests_for_errors():
    other = Statistics([0, 0, 1], [4, 3, 5], scale=100.0, errors=True)
    result = compare(WER, other, seed=2)
    assert result.pop("matched_pairs") == matched_pairs([1, 0, 2], [0, 0, 1])
    assert result.pop("only") == "clusters not known"
    assert result == paired_bootstrap([1, 0, 2], [0, 0, 1], [4, 3, 5], seed=2)
    assert result["difference"] == pytest.approx(100 * 2 / 12)


def test_compare_a_mean():
    result = compare(CIDER, Statistics([0.4, 1.4, 0.0]))
    assert result["difference"] == pytest.approx(0.1)
    assert "matched_pairs" not in result


def test_other_references_are_other_utterances():
    with pytest.raises(ValueError, match="not the same utterances"):
        compare(WER, Statistics([1, 0, 2], [4, 3, 6], scale=100.0, errors=True))
