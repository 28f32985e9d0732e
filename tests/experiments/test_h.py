"""Grids: their sizes, their order, and what cannot be put together."""

import pytest

from lth_jax import grid as h


def test_grids_nest():
    rates = h.sweep("rate", [0.1, 0.01])
    pairs = h.zipit([h.sweep("width", [1, 2]), h.sweep("depth", [3, 4])])
    grid = h.chainit([h.product([rates, pairs, h.fixed("seed", 5)]), h.fixed("rate", 1.0)])
    assert grid.size == 5
    assert list(grid.settings()) == [
        {"rate": rate, "width": width, "depth": depth, "seed": 5}
        for rate in (0.1, 0.01)
        for width, depth in ((1, 3), (2, 4))
    ] + [{"rate": 1.0}]
    assert list(grid.settings()) == list(grid.settings())


def test_a_product_knows_its_size_before_it_is_made():
    grid = h.product([h.sweep(name, range(1000)) for name in "abcd"])
    assert grid.size == 10**12
    assert next(grid.settings()) == dict.fromkeys("abcd", 0)


def test_empty_grids():
    assert h.sweep("a", []).size == 0
    assert list(h.product([h.sweep("a", []), h.sweep("b", [1])]).settings()) == []
    assert list(h.product([]).settings()) == [{}]


@pytest.mark.parametrize("combine", [h.product, h.zipit])
def test_a_field_is_set_once(combine):
    grid = combine([h.fixed("seed", 1), h.fixed("seed", 2)])
    with pytest.raises(ValueError, match="'seed' is set twice"):
        list(grid.settings())


def test_what_is_zipped_has_one_size():
    with pytest.raises(ValueError, match=r"have \[1, 2\] settings"):
        h.zipit([h.sweep("a", [1]), h.sweep("b", [1, 2])])
