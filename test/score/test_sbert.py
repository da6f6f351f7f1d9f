"""sBERT and FENSE with tiny random models, and all-MiniLM-L6-v2 where it is in the cache."""

import hashlib
import math

import pytest
import torch

from pam.errors import PamError
from pam.paths import cache_dir
from pam.score import SBERT, fense, sbert
from pam.score.items import Item

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "barks", "rain", "falls"]


def ac(hyp, *refs):
    return Item(id=hyp, task="ac", hyp=hyp, ref=refs[0], refs=tuple(refs))


ITEMS = [ac("a dog barks", "a dog barks"), ac("rain\nfalls", "a dog", "rain falls"), ac("", "a")]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A folder with a random one-layer BERT that knows ten words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=96,
        max_position_embeddings=80,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_cache(tiny_bert, tmp_path_factory):
    """A cache whose all-minilm-l6-v2 is the tiny BERT with mean pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    cache = tmp_path_factory.mktemp("cache")
    modules = [Transformer(str(tiny_bert)), Pooling(64)]
    SentenceTransformer(modules=modules).save(str(cache / "models" / "all-minilm-l6-v2"))
    return cache


@pytest.fixture
def cache(tiny_cache, monkeypatch):
    monkeypatch.setenv("PAM_CACHE", str(tiny_cache))
    sbert._model.cache_clear()
    yield tiny_cache
    sbert._model.cache_clear()


def embed(folder, text):
    """Mean of BERT's last states, as a plain transcription."""
    from transformers import AutoTokenizer, BertModel

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return BertModel.from_pretrained(folder)(**tokens).last_hidden_state[0].mean(0)


def test_sbert_by_hand(cache, tiny_bert):
    statistics, more = sbert.measure(ITEMS)
    expected = [
        sum(
            torch.cosine_similarity(embed(tiny_bert, hyp), embed(tiny_bert, ref), dim=0).item()
            for ref in refs
        )
        / len(refs)
        for hyp, refs in (
            ("a dog barks", ["a dog barks"]),
            ("rain falls", ["a dog", "rain falls"]),
            ("", ["a"]),
        )
    ]
    assert statistics.numerators == pytest.approx(expected, abs=1e-5)
    assert statistics.numerators[0] == pytest.approx(1)
    assert more == {"model": "cache:all-minilm-l6-v2"}


def test_a_model_that_is_not_there_is_never_made_up(cache, tmp_path):
    with pytest.raises(PamError, match=r"tools/fetch_models\.py paraphrase"):
        sbert.measure(ITEMS, "cache:paraphrase")
    with pytest.raises(PamError, match="is not a model folder and cannot be fetched"):
        sbert.measure(ITEMS, str(tmp_path / "nowhere"))


def checkpoint(folder, tiny_bert, monkeypatch, bias):
    """A detector like the published one: its state, and how to build it. `bias` of "any error"."""
    from transformers import BertModel

    state = {
        f"encoder.{k}": v for k, v in BertModel.from_pretrained(tiny_bert).state_dict().items()
    }
    state["encoder.embeddings.position_ids"] = torch.arange(80)[None]
    torch.manual_seed(1)
    state["clf.weight"] = torch.randn(6, 64)
    state["clf.bias"] = torch.tensor([0.0] * 5 + [bias])
    file = folder / "fense" / fense.CHECKPOINT
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_type": "tiny", "num_classes": 6, "state_dict": state}, file)
    monkeypatch.setattr(fense, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    fense.load_detector.cache_clear()
    return state


def test_the_detector_by_hand(cache, tiny_bert, monkeypatch):
    from transformers import AutoTokenizer, BertModel

    state = checkpoint(cache, tiny_bert, monkeypatch, bias=0.5)
    detector = fense.load_detector(cache / "fense" / fense.CHECKPOINT)
    captions = ["A dog barks!", "rain"]
    found = fense.error_probabilities(detector, captions)
    bert, tokenizer = BertModel.from_pretrained(tiny_bert), AutoTokenizer.from_pretrained(tiny_bert)
    for text, probability in zip(["a dog barks", "rain"], found, strict=True):
        with torch.no_grad():
            first = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
        logit = (state["clf.weight"][-1] @ first + state["clf.bias"][-1]).item()
        assert probability == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)


@pytest.mark.parametrize(("bias", "kept", "penalised"), [(1e4, 0.1, 3), (-1e4, 1.0, 0)])
def test_fense_takes_nine_tenths_off_captions_in_error(
    cache, tiny_bert, monkeypatch, bias, kept, penalised
):
    checkpoint(cache, tiny_bert, monkeypatch, bias)
    similar = sbert.measure(ITEMS)[0].numerators
    statistics, more = fense.measure(ITEMS)
    assert statistics.numerators == pytest.approx([kept * s for s in similar])
    assert more == {"model": "cache:all-minilm-l6-v2", "penalised": penalised}


def test_fense_without_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("PAM_CACHE", str(tmp_path))
    with pytest.raises(PamError, match=r"needs echecker_\w+\.ckpt of github.*1a719f09.*put it at"):
        fense.measure(ITEMS)
    file = tmp_path / "fense" / fense.CHECKPOINT
    file.parent.mkdir()
    file.write_bytes(b"something else")
    with pytest.raises(PamError, match="sha256 is .* expected 1a719f09.*: fetch it again"):
        fense.measure(ITEMS)


@pytest.mark.skipif(
    not (cache_dir() / "models" / "all-minilm-l6-v2").is_dir(),
    reason="all-minilm-l6-v2 is not in the cache: tools/fetch_models.py all-minilm-l6-v2",
)
def test_published_similarities():
    """The example of all-MiniLM-L6-v2's documentation at sbert.net."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    items = [ac(texts[0], texts[1]), ac(texts[0], texts[2]), ac(texts[1], texts[2])]
    assert sbert.similarities(items, SBERT) == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)
