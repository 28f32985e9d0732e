"""What a level starts from, part by part."""

import jax.numpy as jnp
import pytest

from lth_jax.lottery.controls import named
from lth_jax.lottery.rewind import Rewind, check_rewind, cursor_offsets, fill_pruned, start_point
from lth_jax.types import TrainState

REWOUND = TrainState("early weights", "early state", "early slots")
PARENT = TrainState("final weights", "final state", "final slots")
FRESH = TrainState("first weights", "first state", "zero slots")


@pytest.mark.parametrize(
    ("rewind", "expected"),
    [
        (Rewind(), ("early weights", "early state", "zero slots")),
        (Rewind(optimizer="rewind"), ("early weights", "early state", "early slots")),
        (Rewind(state="fresh"), ("early weights", "first state", "zero slots")),
        (
            Rewind("nothing", optimizer="keep", state="keep"),
            ("final weights", "final state", "final slots"),
        ),
        (Rewind("learning_rate", state="keep"), ("final weights", "final state", "zero slots")),
    ],
)
def test_each_part_comes_from_where_it_is_said_to(rewind, expected):
    assert start_point(rewind, REWOUND, PARENT, FRESH) == TrainState(*expected)


def test_pruned_weights_are_filled_from_the_reserve():
    filled = fill_pruned(
        {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([True, False])}, {"w": jnp.array([5.0, 6.0])}
    )
    assert filled["w"].tolist() == [1.0, 6.0]


@pytest.mark.parametrize(
    ("rewind", "level", "schedule", "data"),
    [
        (Rewind(step=20), 3, 0, 0),
        (Rewind(step=20, data="rewind"), 3, 0, 0),
        (Rewind(step=20, data="keep"), 3, 0, 240),
        (Rewind("learning_rate", step=20), 3, 0, 0),
        (Rewind("nothing", step=20), 3, 80, 0),
        (Rewind("nothing", step=20), 0, 0, 0),
    ],
)
def test_cursors(rewind, level, schedule, data):
    offsets = cursor_offsets(rewind, 100, level)
    assert offsets == {"schedule_offset": schedule, "data_offset": data}


def test_a_rewind_that_cannot_be_is_refused():
    check_rewind(Rewind(step=99), 100)
    for rewind in (Rewind(step=100), Rewind(step=-1), Rewind("all"), Rewind(data="old")):
        with pytest.raises(ValueError, match=r"`rewind\."):
            check_rewind(rewind, 100)
    with pytest.raises(ValueError, match="'reinit'"):
        named(["reinit", "reinit"])
