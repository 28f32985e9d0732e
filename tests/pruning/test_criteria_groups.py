"""Scores by group: who is small counts as much as who is not."""

import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning import criteria


def loss(params, x):
    return jnp.mean(x @ params["w"])


PARAMS, MASK = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.ones(2, bool)}
LARGE, SMALL = jnp.array([[3.0, 1.0]] * 90), jnp.array([[0.0, 4.0]] * 10)


def scores(criterion, batches):
    return np.asarray(criterion(PARAMS, MASK, batches=batches)["w"])


def test_groups_count_by_their_weights_and_not_by_their_size():
    saliency = criteria.saliency(loss)
    mixed = scores(saliency, [LARGE, SMALL])
    alone = [scores(saliency, [group]) for group in (LARGE, SMALL)]
    np.testing.assert_allclose(mixed, 0.9 * alone[0] + 0.1 * alone[1], rtol=1e-6)
    alike = scores(criteria.by_group(saliency, (0.5, 0.5)), [LARGE, SMALL])
    np.testing.assert_allclose(alike, 0.5 * alone[0] + 0.5 * alone[1], rtol=1e-6)
    rather = scores(criteria.by_group(saliency, (-1.0, 1.0)), [LARGE, SMALL])
    np.testing.assert_allclose(rather, alone[1] - alone[0], rtol=1e-6)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, np.inf), (1.0, np.nan), ()])
def test_weights_that_say_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="`weights` must be finite and not all 0, got"):
        criteria.by_group(criteria.saliency(loss), weights)


def test_every_group_needs_a_batch():
    fair = criteria.by_group(criteria.saliency(loss), (1.0, 1.0))
    with pytest.raises(ValueError, match="one batch for each of 2 groups, got 1"):
        fair(PARAMS, MASK, batches=[LARGE])
