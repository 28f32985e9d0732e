"""Random resized crops: the boxes against their definition, the pixels against `jax.image`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lth_jax.population.crops import random_box, random_resized_crop, resized_box
from lth_jax.types import Batch

IMAGE = jax.random.uniform(jax.random.key(0), (9, 12, 2))
BOXES = [(0, 0, 9, 12), (2, 3, 4, 5), (8, 11, 1, 1), (0, 6, 9, 6)]


@functools.cache
def boxes(height, width, smallest):
    keys = jax.random.split(jax.random.key(3), 4000)
    one = functools.partial(random_box, height=height, width=width, smallest=smallest)
    return np.asarray(jax.jit(jax.vmap(one))(keys))


@pytest.mark.parametrize("box", BOXES)
def test_a_box_is_resized_as_by_jax(box):
    top, left, height, width = box
    cut = IMAGE[top : top + height, left : left + width]
    resized = jax.jit(resized_box)
    expected = jax.image.resize(cut, IMAGE.shape, "bilinear")
    np.testing.assert_allclose(resized(IMAGE, jnp.array(box)), expected, atol=1e-6)
    whole = jnp.round(255 * IMAGE)
    expected = jnp.round(jax.image.resize(255 * cut, IMAGE.shape, "bilinear"))
    found = resized(whole.astype(jnp.uint8), jnp.array(box))
    assert found.dtype == jnp.uint8
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=1)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (100, 300)])
def test_boxes_lie_in_the_image(height, width):
    top, left, rows, columns = boxes(height, width, 0.08).T
    assert min(top.min(), left.min()) == 0 and min(rows.min(), columns.min()) > 0
    assert (top + rows).max() == height and (left + columns).max() == width


def test_areas_and_ratios_have_the_distributions_of_the_paper():
    """Small boxes always lie in the image, so that no draw is repeated."""
    _, _, rows, columns = boxes(1000, 1000, 0.08).T
    area, ratio = rows * columns / 1e6, np.log(columns / rows)
    fits = (area < 0.5) & (area > 0.1)
    assert stats.kstest(area[fits], stats.uniform(0.1, 0.4).cdf).pvalue > 0.01
    bound = np.log(4 / 3)
    assert stats.kstest(ratio[fits], stats.uniform(-bound, 2 * bound).cdf).pvalue > 0.01
    assert 0.08 * 0.99 < area.min() < 0.09 and area.max() > 0.95
    small, (top, _, height, _) = area < 0.2, boxes(1000, 1000, 0.08).T
    place = top[small] / (1000 - height[small])
    assert stats.kstest(place, stats.uniform(0, 1).cdf).pvalue > 0.01


def test_where_no_box_fits_the_whole_image_is_kept():
    found = boxes(10, 1000, 0.9)
    np.testing.assert_array_equal(found, np.tile([0, 0, 10, 1000], (len(found), 1)))


def test_each_image_of_a_batch_has_its_own_box():
    batch = Batch(jnp.stack([IMAGE] * 4), jnp.arange(4))
    step = jax.jit(lambda key: random_resized_crop(0.3)(key, batch, None, None, {}))
    first, again, other = (np.asarray(step(jax.random.key(k)).x) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    seen = np.unique(np.concatenate([first, other]).reshape(8, -1), axis=0)
    assert len(seen) == 8


@pytest.mark.parametrize("smallest", [0, -0.1, 1.1, float("nan")])
def test_an_illegal_area_is_refused(smallest):
    with pytest.raises(ValueError, match=r"`smallest` is .*; it must lie in \(0, 1\]"):
        random_resized_crop(smallest)
