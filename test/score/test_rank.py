import pytest

from pam.score.rank import average_rank


def test_by_hand():
    values = [[3.0, 10], [1.0, 30], [2.0, 20]]
    assert average_rank(values, ["lower", "higher"]) == [3, 1, 2]
    assert average_rank(values, ["lower", "lower"]) == [2, 2, 2]


def test_of_equal_values_the_earlier_row_is_better():
    assert average_rank([[5], [5], [4]], ["lower"]) == [2, 3, 1]
    assert average_rank([[5], [5], [4]], ["higher"]) == [1, 2, 3]


def test_a_missing_value_is_worst_in_either_direction():
    assert average_rank([[None, None], [-9.0, 9e9]], ["higher", "lower"]) == [2, 1]


def test_a_direction_must_be_known():
    with pytest.raises(ValueError, match="'up'"):
        average_rank([[1]], ["up"])
