"""The losses against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from lth_jax.population import losses

RNG = np.random.default_rng(0)
Z, V = (RNG.normal(size=shape).astype(np.float32) for shape in ((6, 5), (3, 6, 5)))
LABELS = RNG.integers(5, size=6)


def taught(weight=0.5, temperature=2.0, labels=LABELS, teachers=V):
    return losses.DistillTargets(labels, teachers, jnp.full(6, weight), jnp.float32(temperature))


def divergence(z, v, temperature):
    """T² KL(mean of the teachers' softened outputs ‖ the student's)."""
    p = softmax(v.astype(np.float64) / temperature, axis=-1).mean(axis=0)
    log_q = log_softmax(z.astype(np.float64) / temperature, axis=-1)
    return temperature**2 * np.sum(p * (np.log(p) - log_q), axis=-1)


def test_a_sequence_counts_as_the_mean_of_its_steps():
    logits, labels = RNG.normal(size=(4, 3, 5)).astype(np.float32), RNG.integers(5, size=(4, 3))
    steps = losses.cross_entropy(logits.reshape(12, 5), labels.ravel())
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels), steps.reshape(4, 3).mean(axis=1), rtol=1e-6
    )
    np.testing.assert_allclose(
        losses.correct(logits, labels), (logits.argmax(axis=-1) == labels).mean(axis=1), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_correct_is_the_argmax_with_ties_and_infinities(dtype):
    logits = RNG.integers(-3, 4, (4000, 7)).astype(np.float32)
    logits[:50, 3], logits[50:80], logits[80:99, 2] = -np.inf, -np.inf, np.inf
    labels = RNG.integers(0, 7, 4000)
    logits = jnp.asarray(logits, dtype)
    assert (losses.correct(logits, labels) == (logits.argmax(axis=-1) == labels)).all()


def test_nothing_is_correct_with_nan_or_an_unknown_label():
    logits = jnp.array([[1.0, 0.0], [1.0, 0.0], [jnp.nan, 0.0], [0.0, jnp.nan]])
    assert losses.correct(logits, jnp.array([-1, 2, 0, 1])).tolist() == [0.0] * 4


def test_soft_cross_entropy_of_certain_targets_is_the_cross_entropy():
    certain = np.eye(5)[LABELS]
    np.testing.assert_allclose(
        losses.soft_cross_entropy(Z, certain), losses.cross_entropy(Z, LABELS), rtol=1e-6
    )
    targets = softmax(V[0].astype(np.float64), axis=-1)
    wanted = -(targets * log_softmax(Z.astype(np.float64), axis=-1)).sum(axis=-1)
    np.testing.assert_allclose(losses.soft_cross_entropy(Z, targets), wanted, rtol=1e-5)


@pytest.mark.parametrize("teachers", [V[:1], V], ids=["one", "ensemble"])
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (0.3, 4.0)])
def test_distillation_is_what_its_authors_define(teachers, weight, temperature):
    hard = -log_softmax(Z.astype(np.float64), axis=-1)[np.arange(6), LABELS]
    wanted = (1 - weight) * hard + weight * divergence(Z, teachers, temperature)
    got = losses.distillation(Z, taught(weight, temperature, teachers=teachers))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_without_weight_the_teacher_does_not_matter():
    def loss(z, weight):
        return losses.distillation(z, taught(weight)).sum()

    plain = jax.value_and_grad(lambda z: losses.cross_entropy(z, LABELS).sum())(Z)
    jax.tree.map(np.testing.assert_array_equal, jax.value_and_grad(loss)(Z, 0.0), plain)


def test_at_high_temperature_distillation_matches_logits():
    centred = (Z - Z.mean(axis=1, keepdims=True)) - (V[0] - V[0].mean(axis=1, keepdims=True))

    def loss(z):
        return losses.distillation(z, taught(1.0, 300.0, teachers=V[:1])).sum()

    gradient = jax.grad(loss)(Z)
    np.testing.assert_allclose(gradient, centred / 5, rtol=0.02, atol=2e-3)


def test_hostile_logits_stay_finite():
    extreme = jnp.array([[1e4, -1e4, 0.0, 0.0, 0.0]] * 6)
    value, gradient = jax.value_and_grad(
        lambda z: losses.distillation(z, taught(teachers=extreme[None])).sum()
    )(-extreme)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("labels", [LABELS, np.eye(5, dtype=np.float32)[LABELS]])
def test_strict_dtype_promotion_holds(labels):
    with jax.numpy_dtype_promotion("strict"):
        targets = jax.tree.map(jnp.asarray, taught(labels=labels))
        out = losses.distillation(jnp.asarray(Z, jnp.bfloat16), targets)
    assert out.shape == (6,) and out.dtype == jnp.float32


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.correct, losses.bits])
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(6, np.float32), TypeError, "`labels` have dtype float32; they must be integers"),
        (np.zeros((6, 1), int), ValueError, r"shape \(6, 1\); they must have shape \(6,\)"),
    ],
)
def test_labels_that_are_no_classes_are_refused(loss, labels, error, message):
    with pytest.raises(error, match=message):
        loss(jnp.asarray(Z), labels)


def test_targets_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"shape \(6,\); they must have that .* \(6, 1\)"):
        losses.squared_error(jnp.zeros((6, 1)), jnp.zeros(6))
