"""A dummy metric: how many answers have the length of their reference."""

from pam.score.metric import Metric
from pam.score.utterances import Statistics


class SameLength(Metric):
    """Answers as long as their reference / all answers."""

    name = "same_length"
    title = "same length"
    unit = "%"
    digits = 1

    def measure(self, items, sbert=""):
        return Statistics([len(i.hyp) == len(i.ref) for i in items], scale=100.0), {"extra": 7}

    def counts(self, score):
        return f"of {score['count']}"
