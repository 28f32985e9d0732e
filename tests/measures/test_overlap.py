import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, jaccard_score

from lth_jax.measures.overlap import Overlap, between_members, overlaps, total

PRUNABLE = {"a": True, "b": True, "bias": False}


def random_masks(rng, *, members=(), density=0.3):
    draw = lambda *shape: rng.random((*members, *shape)) < density  # noqa: E731
    return {"a": draw(40, 50), "b": draw(300), "bias": np.ones((*members, 7), bool)}


def test_the_measures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    first, second = random_masks(rng), random_masks(rng, density=0.6)
    got = overlaps(first, second, prunable=PRUNABLE)
    assert list(got) == ["a", "b"]
    for name, overlap in got.items():
        a, b = first[name].ravel(), second[name].ravel()
        assert overlap.iou == pytest.approx(jaccard_score(a, b))
        assert overlap.kappa == pytest.approx(cohen_kappa_score(a, b))


def test_equal_masks_overlap_fully_and_shuffled_ones_by_chance():
    rng = np.random.default_rng(1)
    mask = {"a": rng.random(100_000) < 0.2}
    other = {"a": rng.permutation(mask["a"])}
    same = overlaps(mask, mask, prunable={"a": True})["a"]
    assert (same.iou, same.kappa) == (1.0, 1.0)
    shuffled = overlaps(mask, other, prunable={"a": True})["a"]
    assert shuffled.iou == pytest.approx(shuffled.chance_iou, abs=0.01)
    assert shuffled.kappa == pytest.approx(0.0, abs=0.01)


def test_chance_of_the_total_keeps_each_leafs_density():
    # One leaf kept whole, one almost empty: the total overlaps a lot, and none of it is agreement.
    full, sparse = Overlap(100, 100, 100, 100, 100.0), Overlap(100, 10, 10, 1, 1.0)
    joined = total([full, sparse])
    assert joined.iou == joined.chance_iou > 0.8
    assert joined.kappa == 0.0


def test_the_overlap_of_empty_masks_is_undefined():
    empty = Overlap(5, 0, 0, 0, 0.0)
    assert np.isnan([empty.iou, empty.chance_iou, empty.kappa]).all()
    assert np.isnan(Overlap(5, 5, 5, 5, 5.0).kappa)
    assert np.isnan(total([]).iou)


def test_every_pair_of_members_is_compared():
    masks = random_masks(np.random.default_rng(2), members=(3,))
    pairs = between_members({k: jnp.asarray(v) for k, v in masks.items()}, prunable=PRUNABLE)
    assert list(pairs) == [(0, 1), (0, 2), (1, 2)]
    assert pairs[0, 2]["b"].both == np.count_nonzero(masks["b"][0] & masks["b"][2])


def test_one_member_has_no_pair():
    assert between_members({"a": np.ones((1, 3), bool)}, prunable={"a": True}) == {}


@pytest.mark.parametrize(
    ("first", "second", "prunable", "error", "message"),
    [
        ({"a": [True]}, {"b": [True]}, {"a": [True]}, ValueError, "`second` must have"),
        (
            {"a": np.ones(3, bool)},
            {"a": np.ones(4, bool)},
            {"a": True},
            ValueError,
            r"'a' has shape \(4,\)",
        ),
        ({"a": np.ones(3)}, {"a": np.ones(3)}, {"a": True}, TypeError, "boolean, got float64"),
        (
            {"a": np.ones(3, bool)},
            {"a": np.ones(3, bool)},
            {"b": True},
            ValueError,
            r"`prunable` must have the structure of `first`, got leaves \['b'\]",
        ),
    ],
)
def test_bad_input_is_named(first, second, prunable, error, message):
    with pytest.raises(error, match=message):
        overlaps(first, second, prunable=prunable)
