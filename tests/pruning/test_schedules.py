"""Schedules against their formulas, and the early-bird rule on a history with a known result."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest

from lth_jax import trees
from lth_jax.pruning import schedules

TO_FINAL = [schedules.linear, schedules.cubic, schedules.exponential]


@pytest.mark.parametrize("schedule", TO_FINAL)
@pytest.mark.parametrize("final", [1e-3, 0.1, 0.5, 1.0])
def test_begins_dense_falls_and_stays_at_its_end(schedule, final):
    densities = [schedule(7, final)(level) for level in range(10)]
    assert densities[0] == 1.0
    assert densities[7:] == [final] * 3
    assert all(later <= earlier for earlier, later in pairwise(densities))


def test_cubic_is_zhu_and_guptas():
    """Sparsity s_f + (0 − s_f)(1 − t/n)³ with s_f = 0.87 after a third of the events."""
    sparsity = 1 - schedules.cubic(3, 0.13)(1)
    assert sparsity == pytest.approx(0.87 - 0.87 * (2 / 3) ** 3)


def test_exponential_is_geometric_with_a_given_end():
    rate = 1 - 0.1 ** (1 / 5)
    for level in range(6):
        want = schedules.geometric(rate)(level)
        assert schedules.exponential(5, 0.1)(level) == pytest.approx(want)


def test_one_shot():
    assert [schedules.one_shot(0.2)(level) for level in range(3)] == [1.0, 0.2, 0.2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: schedules.geometric(0), r"`rate` must lie in \(0, 1\), but is 0\."),
        (lambda: schedules.geometric(1), r"`rate` must lie in \(0, 1\), but is 1\."),
        (lambda: schedules.geometric(1.2), r"`rate` must lie in \(0, 1\), but is 1\.2\."),
        (lambda: schedules.linear(0, 0.5), "`levels` must be"),
        (lambda: schedules.cubic(3, float("nan")), "`final` must lie in"),
        (lambda: schedules.one_shot(0.0), "`final` must lie in"),
        (lambda: schedules.one_shot(0.5)(-1), "`level` must be"),
        (lambda: schedules.geometric(0.2)(jnp.float32(1.5)), "`level` must be"),
        (lambda: schedules.early_bird({"w": True}, threshold=0.0), "`threshold` must lie in"),
        (lambda: schedules.early_bird({"w": True}, window=0), "`window` must be"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def first_found(masks, **settings):
    rule = schedules.early_bird({"w": True}, **settings)
    _, found = jax.lax.scan(
        lambda state, mask: rule.update(state, {"w": mask}), rule.init({"w": masks[0]}), masks[1:]
    )
    return int(jnp.argmax(found)) if bool(found.any()) else None


def test_early_bird_waits_for_a_whole_quiet_window():
    """Masks of 10 weights whose steps change 4, 2, 0, 2, 0, 0, 0, 0 of them."""
    history = [jnp.arange(10) < 5]
    for moves in (4, 2, 0, 2, 0, 0, 0, 0):
        history.append(history[-1] ^ (jnp.arange(10) < moves))
    masks = jnp.stack(history)
    assert first_found(masks, threshold=0.1, window=2) == 5
    assert first_found(masks, threshold=0.1, window=4) == 7
    assert first_found(masks, threshold=0.25, window=3) == 3
    assert first_found(masks, threshold=0.1, window=5) is None


def test_members_stop_at_their_own_time():
    quiet = jnp.ones((4, 6), bool)
    busy = quiet.at[1::2].set(False)
    rule = schedules.early_bird({"w": True}, window=2)

    def member(masks):
        update = lambda state, mask: rule.update(state, {"w": mask})  # noqa: E731
        return jax.lax.scan(update, rule.init({"w": masks[0]}), masks[1:])[1]

    found = jax.vmap(member)(trees.stack([quiet, busy]))
    assert found.tolist() == [[False, True, True], [False, False, False]]
