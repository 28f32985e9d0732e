import jax
import numpy as np
import pytest

from lth_jax.data import planted
from lth_jax.models import MLP, from_linen


def test_the_teacher_is_right_everywhere_as_an_mlp():
    """It is the optimum: parameters that `models.MLP` can hold, without one error."""
    options = {"inputs": 9, "hidden": 12, "classes": 3, "density": 0.25, "data_seed": 4}
    made, teacher = planted.planted(train=500, test=100, **options), planted.teacher(**options)
    model = from_linen(MLP((12, 3)))
    params, state = model.init(jax.random.key(0), made.train.x[:1])
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, teacher.params)
    for part in (made.train, made.test):
        logits, _ = model.apply(teacher.params, state, part.x, train=False)
        assert (np.argmax(logits, axis=1) == part.y).all()
    assert np.bincount(made.train.y).min() > 50  # no class is left out


def test_the_planted_mask_is_where_the_teacher_is_not_zero():
    params, mask = planted.teacher(inputs=10, hidden=20, classes=5, density=0.3)
    for name, kept in (("Dense_0", 60), ("Dense_1", 40)):
        np.testing.assert_array_equal(mask[name]["kernel"], params[name]["kernel"] != 0)
        assert mask[name]["kernel"].sum() == kept and mask[name]["bias"].all()


def test_no_planted_weight_is_idle():
    """Every unit has inputs and outputs, every class has inputs, and no weight is nearly 0."""
    params, mask = planted.teacher(inputs=12, hidden=9, classes=4, density=0.25, data_seed=1)
    first, second = (mask[name]["kernel"] for name in ("Dense_0", "Dense_1"))
    assert set(first.sum(axis=0)) == {3} and set(second.sum(axis=1)) == {1}
    assert set(second.sum(axis=0)) == {2, 3}
    for name, fan_in in (("Dense_0", 3), ("Dense_1", 3)):
        sizes = np.abs(params[name]["kernel"][mask[name]["kernel"]])
        assert sizes.min() >= 0.5 * np.sqrt(2 / fan_in)
        assert sizes.max() <= 1.5 * np.sqrt(2 / 2)


def test_the_biases_centre_the_logits():
    teacher = planted.teacher()
    x = np.random.default_rng(0).standard_normal((20_000, 20))
    np.testing.assert_allclose(planted.logits(teacher.params, x).mean(axis=0), 0, atol=0.05)


def test_a_seed_decides_everything():
    first, again, other = (planted.planted(train=9, test=1, data_seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.train.x, again.train.x)
    assert not np.array_equal(first.train.x, other.train.x)
    masks = [planted.teacher(data_seed=s).mask["Dense_0"]["kernel"] for s in (0, 1)]
    assert not np.array_equal(*masks)


@pytest.mark.parametrize("wrong", [{"density": 0.0}, {"classes": 1}, {"hidden": 0}])
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must lie in"):
        planted.teacher(**wrong)
