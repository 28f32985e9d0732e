"""Exact selection against a stable sort on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lth_jax.pruning.topk import largest

SHAPES = ((3, 4), (7,), (), (2, 3, 2))
SIZE = sum(int(np.prod(shape)) for shape in SHAPES)
select = jax.jit(largest)


def split(flat):
    parts = np.split(flat, np.cumsum([int(np.prod(s)) for s in SHAPES])[:-1])
    return [jnp.asarray(part.reshape(shape)) for part, shape in zip(parts, SHAPES, strict=True)]


def join(leaves):
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def truth(scores, live, count):
    """Stable sort by (live first, score descending, position)."""
    scores = np.asarray(scores, np.float64)
    order = np.lexsort((np.arange(scores.size), -scores, ~live))
    keep = np.zeros(scores.size, bool)
    keep[order[: min(count, live.sum())]] = True
    return keep


SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3e38, -3e38, np.inf, -np.inf, 0.5]


@settings(max_examples=150, deadline=None)
@given(
    scores=st.lists(
        st.sampled_from(SPECIAL) | st.floats(width=32, allow_nan=False),
        min_size=SIZE,
        max_size=SIZE,
    ),
    live=st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    count=st.integers(0, SIZE + 3),
)
def test_keeps_what_a_stable_sort_keeps(scores, live, count):
    scores, live = np.array(scores, np.float32), np.array(live)
    kept = join(select(split(scores), split(live), jnp.int32(count)))
    np.testing.assert_array_equal(kept, truth(scores, live, count))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype):
    scores = jax.random.normal(jax.random.key(0), (SIZE,)).astype(dtype)
    live = np.arange(SIZE) % 5 != 0
    for count in (0, 1, 9, SIZE):
        kept = join(select(split(np.asarray(scores)), split(live), jnp.int32(count)))
        np.testing.assert_array_equal(kept, truth(scores, live, count))


def test_leaves_may_differ_in_dtype():
    scores = [jnp.array([1.0, 4.0], jnp.bfloat16), jnp.array([2.0, 3.0], jnp.float32)]
    live = [jnp.ones(2, bool)] * 2
    kept = select(scores, live, jnp.int32(2))
    assert [k.tolist() for k in kept] == [[False, True], [False, True]]


def test_double_precision_is_not_rounded():
    with jax.enable_x64(True):
        scores = [jnp.array([1.0, 1.0 + 1e-12, 1.0])]
        kept = select(scores, [jnp.ones(3, bool)], jnp.int32(1))[0]
    assert kept.tolist() == [False, True, False]


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 4999, 5000])
def test_ties_in_a_long_vector_are_kept_by_position(count):
    kept = select([jnp.ones(5000)], [jnp.ones(5000, bool)], jnp.int32(count))[0]
    np.testing.assert_array_equal(kept, np.arange(5000) < count)


def test_a_nan_ranks_below_every_number():
    scores = [jnp.array([jnp.nan, -jnp.inf, -jnp.nan, 1.0])]
    kept = select(scores, [jnp.ones(4, bool)], jnp.int32(2))[0]
    assert kept.tolist() == [False, True, False, True]


def test_members_of_a_population_differ_in_count():
    scores = jax.random.randint(jax.random.key(1), (5, SIZE), -3, 3).astype(jnp.float32)
    live = jax.random.bernoulli(jax.random.key(2), 0.7, (5, SIZE))
    counts = jnp.array([0, 3, 9, 14, SIZE], jnp.int32)

    @jax.jit
    @jax.vmap
    def members(scores, live, count):
        return largest([scores[:12], scores[12:]], [live[:12], live[12:]], count)

    kept = np.concatenate(members(scores, live, counts), axis=1)
    for i in range(5):
        want = truth(scores[i], np.asarray(live[i]), int(counts[i]))
        np.testing.assert_array_equal(kept[i], want)


def test_the_same_on_eight_devices():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    scores = jax.random.randint(jax.random.key(3), (16, 24), -9, 9).astype(jnp.float32)
    bias = jnp.arange(11.0) - 3
    live = [jnp.ones(s.shape, bool) for s in (scores, bias)]
    want = select([scores, bias], live, jnp.int32(100))
    sharded = jax.device_put(scores, NamedSharding(mesh, PartitionSpec(None, "x")))
    got = select([sharded, bias], live, jnp.int32(100))
    assert len(sharded.sharding.device_set) == 8
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(int(k.sum()) for k in got) == 100


def test_arrays_compete_among_themselves_when_not_pooled():
    scores = [jnp.arange(7.0), -jnp.arange(3.0), jnp.ones(2000)]
    live = [jnp.ones(s.shape, bool) for s in scores]
    apart = jax.jit(lambda counts: largest(scores, live, counts, pooled=False))
    for counts in ([1, 3, 1500], [7, 0, 2000]):
        kept = apart(jnp.array(counts, jnp.int32))
        for s, k, count in zip(scores, kept, counts, strict=True):
            np.testing.assert_array_equal(k, truth(s, np.ones(s.shape, bool), count))


def test_sizes_are_filled_by_the_fewest_best_entries():
    scores, live = [jnp.array([3.0, 1.0]), jnp.array([2.0, 2.0])], [jnp.ones(2, bool)] * 2
    fill = jax.jit(lambda count: largest(scores, live, count, sizes=[4, 3]))
    for count, want in [(0, 0), (1, 4), (4, 4), (5, 4 + 3), (7, 7), (8, 10), (99, 14)]:
        kept = fill(jnp.int32(count))
        assert 4 * kept[0].sum() + 3 * kept[1].sum() == want, count


def test_sizes_may_differ_between_entries():
    sizes = np.array([5, 1, 2, 7])
    fill = jax.jit(lambda s: largest([s], [s > 0], jnp.int32(6), sizes=[sizes])[0])
    with jax.numpy_dtype_promotion("strict"):
        assert fill(jnp.ones(4)).tolist() == [True, True, False, False]
