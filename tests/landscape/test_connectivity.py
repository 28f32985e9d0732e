"""Lines and planes between networks whose losses are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.landscape import connectivity
from lth_jax.types import Batch

ALPHAS = np.linspace(0, 1, 11)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = draw(0, 20, 4)
NET = {"a": draw(1, 4, 6), "b": draw(2, 6, 2)}


def predict(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


Y = np.asarray(predict(NET, X))


def loss(params):
    return jnp.mean((predict(params, X) - Y) ** 2)


def shuffled(params, seed=3):
    order = np.random.default_rng(seed).permutation(6)
    return {"a": params["a"][:, order], "b": params["b"][order]}


def test_a_line_is_evaluated_point_by_point():
    other = {"a": draw(4, 4, 6), "b": draw(5, 6, 2)}
    found = jax.jit(lambda p, q: connectivity.along_line(loss, p, q, ALPHAS))(NET, other)
    expected = [
        float(loss({k: (1 - a) * NET[k] + np.float32(a) * other[k] for k in NET}))
        for a in ALPHAS.astype(np.float32)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_grid_is_one_program():
    traced: list[None] = []

    def counted(params):
        traced.append(None)
        return loss(params)

    connectivity.along_line(counted, NET, shuffled(NET), np.linspace(0, 1, 50))
    assert len(traced) == 1


def test_the_ends_are_exact():
    other = shuffled(NET)
    for alpha, end in ((0.0, NET), (1.0, other)):
        mixed = connectivity.mix(NET, other, alpha)
        jax.tree.map(np.testing.assert_array_equal, mixed, end)


def test_aligning_permuted_copies_takes_the_barrier_away():
    other = shuffled(NET)
    apart = connectivity.along_line(loss, NET, other, ALPHAS)
    together = connectivity.along_line(loss, NET, other, ALPHAS, align=lambda first, second: NET)
    assert connectivity.barrier(apart) > 0.1
    np.testing.assert_allclose(connectivity.barrier(together), 0, atol=1e-6)


def test_tickets_of_one_mask_stay_on_it():
    mask = jax.tree.map(lambda p: p > 0, NET)
    ends = [
        jax.tree.map(np.multiply, net, mask) for net in (NET, {"a": NET["a"] * 2, "b": NET["b"]})
    ]

    def off_mask(params):
        return sum(jnp.sum(jnp.abs(params[k]) * jnp.asarray(~mask[k], jnp.float32)) for k in params)

    values = connectivity.along_line(off_mask, ends[0], ends[1], ALPHAS)
    np.testing.assert_array_equal(values, 0)


def test_a_line_maps_over_a_population_and_over_trees_of_metrics():
    seconds = {"a": draw(6, 3, 4, 6), "b": draw(7, 3, 6, 2)}

    def metrics(params):
        return {"loss": loss(params), "output": predict(params, X).mean()}

    found = jax.vmap(lambda s: connectivity.along_line(metrics, NET, s, ALPHAS))(seconds)
    assert jax.tree.map(jnp.shape, found) == {"loss": (3, 11), "output": (3, 11)}
    alone = connectivity.along_line(metrics, NET, jax.tree.map(lambda p: p[1], seconds), ALPHAS)
    np.testing.assert_allclose(found["loss"][1], alone["loss"], rtol=1e-5, atol=1e-7)
    assert connectivity.barrier(found["loss"]).shape == (3,)


def test_barriers_of_a_parabola():
    values = 1 - (2 * ALPHAS - 1) ** 2 + ALPHAS  # ends 0 and 1, a hill above the chord of height 1
    assert connectivity.barrier_above_chord(values, ALPHAS) == pytest.approx(1)
    assert connectivity.barrier(values) == pytest.approx(values.max() - 0.5)


def test_a_convex_line_has_no_barrier_above_its_chord():
    values = (ALPHAS - 0.2) ** 2
    assert connectivity.barrier_above_chord(values, ALPHAS) == 0


def test_a_diverged_point_is_not_hidden():
    assert np.isnan(connectivity.barrier([0.0, np.nan, 1.0]))
    assert connectivity.barrier([0.0, np.inf, 1.0]) == np.inf


def test_renewed_statistics_repair_a_line():
    # The outputs are divided by the state, the spread of the hidden layer at one of the ends.
    def apply(params, state, x, *, key=None, train):
        del key
        h = x @ params["a"]
        spread = jnp.std(h)
        return h / (spread if train else state), 0.5 * state + 0.5 * spread

    batches = [Batch(X, None)] * 24
    first, second = {"a": NET["a"]}, {"a": -3 * NET["a"]}
    state = apply(first, jnp.float32(0), X, train=True)[1] * 2

    def spread(params, state):
        return jnp.std(apply(params, state, X, train=False)[0])

    def repaired(params):
        return spread(params, connectivity.renew_state(apply, params, state, batches))

    stale = connectivity.along_line(lambda p: spread(p, state), first, second, [0.0, 0.5, 1.0])
    fresh = connectivity.along_line(repaired, first, second, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(stale, [1, 1, 3], rtol=1e-4)
    np.testing.assert_allclose(fresh, [1, 1, 1], rtol=1e-4)


def test_each_batch_draws_with_its_own_key():
    def apply(params, state, x, *, key, train):
        return x, [*state, jax.random.uniform(key)]

    drawn = connectivity.renew_state(apply, {}, [], [Batch(X, None)] * 3, key=KEY)
    assert len({float(u) for u in drawn}) == 3


def test_a_plane_is_evaluated_point_by_point():
    first, second = ({"a": draw(i, 4, 6), "b": draw(i + 1, 6, 2)} for i in (8, 10))
    xs, ys = [-1.0, 0.0, 2.0], [0.0, 0.5]
    found = connectivity.over_plane(loss, NET, first, second, xs, ys)
    expected = [
        [loss({k: NET[k] + x * first[k] + y * second[k] for k in NET}) for y in ys] for x in xs
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_filter_directions_have_the_norms_of_the_filters():
    params = {"conv": draw(12, 3, 3, 2, 5), "bias": draw(13, 5)}
    mask = {"conv": draw(14, 3, 3, 2, 5) > 0, "bias": np.ones(5, bool)}
    mask["conv"][..., 0] = False  # a filter that is gone
    found = connectivity.filter_direction(KEY, params, mask)
    norms = np.sqrt(np.sum((params["conv"] * mask["conv"]) ** 2, axis=(0, 1, 2)))
    np.testing.assert_allclose(
        np.sqrt(np.sum(np.square(found["conv"]), axis=(0, 1, 2))), norms, rtol=1e-5
    )
    np.testing.assert_array_equal(found["conv"][~mask["conv"]], 0)
    np.testing.assert_array_equal(found["bias"], 0)


def test_a_surface_is_the_same_for_rescaled_copies():
    # For a homogeneous net, scaling a layer up and the next down changes nothing (Li et al., 2018).
    def relu_loss(params):
        return jnp.mean((jax.nn.relu(X @ params["a"]) @ params["b"] - Y) ** 2)

    copy = {"a": 4 * NET["a"], "b": NET["b"] / 4}
    surfaces = []
    for net in (NET, copy):
        one, two = (connectivity.filter_direction(jax.random.key(i), net) for i in (1, 2))
        surfaces.append(connectivity.over_plane(relu_loss, net, one, two, [-1.0, 1.0], [0.5]))
    np.testing.assert_allclose(surfaces[0], surfaces[1], rtol=1e-4)


def test_directions_of_different_keys_differ():
    one, two = (connectivity.filter_direction(jax.random.key(i), NET)["a"] for i in (0, 1))
    assert np.abs(one - two).max() > 0.1


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: connectivity.along_line(loss, NET, {"a": NET["a"]}, ALPHAS),
            ValueError,
            "`second`",
        ),
        (lambda: connectivity.along_line(loss, NET, NET, 0.5), ValueError, "`alphas` must be one"),
        (lambda: connectivity.along_line(loss, NET, NET, []), ValueError, "`alphas` must be one"),
        (
            lambda: connectivity.along_line(loss, {"n": jnp.arange(2)}, NET, ALPHAS),
            TypeError,
            "`first` at 'n' must be floating-point",
        ),
        (
            lambda: connectivity.along_line(loss, NET, NET, ALPHAS, align=lambda p, q: {}),
            ValueError,
            "`align's result`",
        ),
        (lambda: connectivity.barrier([1.0, 2.0]), ValueError, "`values` must hold at least 3"),
        (
            lambda: connectivity.barrier_above_chord([1.0, 2.0, 1.0], [0.0, 0.5, 0.9]),
            ValueError,
            "`alphas` must rise from 0 to 1",
        ),
        (
            lambda: connectivity.barrier_above_chord([1.0, 2.0, 1.0], [0.0, 1.0]),
            ValueError,
            "`alphas` must rise from 0 to 1",
        ),
        (
            lambda: connectivity.over_plane(loss, NET, {"a": NET["a"]}, NET, [0.0], [0.0]),
            ValueError,
            "`first` must have the structure",
        ),
        (lambda: connectivity.filter_direction(KEY, NET, NET), TypeError, "`mask` at 'a'"),
        (lambda: connectivity.mix({"n": jnp.arange(2)}, NET, 0.5), TypeError, "`first` at 'n'"),
    ],
)
def test_bad_input_is_one_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()
