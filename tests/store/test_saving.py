"""When unfinished work is saved, by a clock that the tests turn."""

import itertools
import json

import pytest

from lth_jax.store import SaveTimer
from tests.store.test_teams import team


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def train(segments, seconds, *, cost=0.0):
    """Trains segments of these lengths in seconds, saves when due.

    Returns:
      The segments after which it saved, the most work that a kill could repeat, and the share of
      the time that saving took.
    """
    clock = Clock()
    timer = SaveTimer(seconds, clock=clock)
    saves, most, since = [], 0.0, 0.0
    for i, (length, following) in enumerate(itertools.pairwise([*segments, None])):
        clock.now, since = clock.now + length, since + length
        most = max(most, since)
        if following is not None and timer.due(10, 10):
            saves.append(i)
            clock.now, since = clock.now + cost, 0.0
            timer.saved()
    return saves, most, cost * len(saves) / clock.now


@pytest.mark.parametrize("length", [0.01, 0.3, 1.0, 2.3, 4.0, 5.1, 9.0, 10.0, 11.0, 60.0])
def test_a_kill_repeats_at_most_the_promise_or_a_segment(length):
    saves, most, share = train([length] * max(5, int(120 / length)), 10.0, cost=0.084)
    assert saves and most <= max(10.0, length) + 1e-9
    assert share <= 0.02


def test_saves_are_as_rare_as_the_promise_allows():
    assert train([3.0] * 8, 10.0)[0] == [2, 5]
    assert train([3.0] * 8, 5.0)[0] == list(range(7))
    assert train([1.0] * 8, 4.0)[0] == [3]


def test_work_that_ends_within_the_promise_is_not_saved():
    assert train([1.0] * 10, 10.0)[0] == []
    assert train([4.0, *[0.5] * 11], 10.0)[0] == []  # the first segment compiles


def test_zero_seconds_save_each_segment_but_the_last():
    assert train([0.0, 1.0, 0.0, 2.0], 0.0)[0] == [0, 1, 2]


def test_segments_of_different_lengths_count_by_their_steps():
    clock = Clock()
    timer = SaveTimer(10.0, clock=clock)
    clock.now = 2.0
    assert not timer.due(10, 10)
    clock.now = 4.0
    assert timer.due(10, 50)  # at 0.2 s a step the next one takes 10 s


def test_the_clock_of_process_0_decides_for_all():
    clock = iter([0.0])  # read at the start only
    timer = SaveTimer(10.0, team(1, json.dumps({"value": True}), None), lambda: next(clock))
    assert timer.due(1, 1)
    timer = SaveTimer(10.0, team(0, None, ""), Clock())
    assert not timer.due(1, 1)
