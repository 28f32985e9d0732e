"""C3: masks are weighed in real bytes."""

import numpy as np
import pytest

from experiments.studies import c03_mask_entropy as c3
from lth_jax.coding.entropy import (
    binary_entropy,
    break_even_density,
    enumerative_bits,
    layer_bits,
)
from lth_jax.coding.size import mask_bytes, order_saving, within_margins
from tests.experiments.studies.study_runs import runner_in, tiny


def test_rows_of_two_densities_save_what_their_entropies_say():
    rng = np.random.default_rng(0)
    mask = np.arange(400)[:, None] % 2 == 0
    mask = rng.random((400, 900)) < np.where(mask, 0.24, 0.02)
    apart = (binary_entropy(0.24) + binary_entropy(0.02)) / 2
    exact = 100 * (1 - apart / binary_entropy(0.13))
    assert order_saving({"w": mask}, rng)["w"] == pytest.approx(exact, abs=1.0)


def test_a_mask_of_lenet_at_a_tenth_has_its_exact_lengths():
    counts = [(266_200, 26_620)]
    assert (round(enumerative_bits(counts)), round(layer_bits(counts))) == (124_838, 124_847)


@pytest.mark.parametrize(("bits", "density"), [(1, 0.227), (2, 0.5), (4, 0.844), (8, 0.989)])
def test_a_mask_without_order_pays_below_the_break_even_density(bits, density):
    assert break_even_density(bits) == pytest.approx(density, abs=5e-4)


def test_all_layers_together_weigh_their_sum():
    found = mask_bytes({"a": np.eye(40, dtype=bool), "b": np.ones((3, 3), bool)})
    assert found["all layers"] == found["a"] + found["b"] and found["b"] == 0


def test_a_shuffle_within_margins_keeps_all_sums_and_changes_the_mask():
    rng = np.random.default_rng(1)
    mask = rng.random((30, 20)) < 0.3
    drawn = within_margins(mask, rng)
    for axis in (0, 1):
        np.testing.assert_array_equal(drawn.sum(axis), mask.sum(axis))
    agreement = (drawn & mask).sum() / mask.sum()
    assert agreement == pytest.approx(0.35, abs=0.1)  # that of independent masks with such sums


def test_masks_with_given_margins_are_equally_likely():
    rng = np.random.default_rng(2)
    drawn = [within_margins(np.eye(3, dtype=bool), rng).tobytes() for _ in range(600)]
    counts = [drawn.count(one) for one in set(drawn)]
    assert len(counts) == 6 and max(counts) < 140  # six permutations, 100 of each expected


def test_rows_of_two_densities_save_nothing_beyond_their_margins():
    rng = np.random.default_rng(3)
    mask = rng.random((300, 300)) < np.where(np.arange(300)[:, None] % 2 == 0, 0.24, 0.02)
    assert order_saving({"w": mask}, rng)["w"] > 10
    assert order_saving({"w": mask}, rng, shuffle=within_margins)["w"] == pytest.approx(0, abs=2)


def test_the_smallest_dense_network_is_chosen_by_the_other_seeds():
    size = np.tile([100.0, 50.0, 25.0], (4, 1))
    accuracy = np.array([[60, 59, 58.5], [60, 59, 40], [60, 59, 58.5], [60, 59, 40.0]])
    chosen = c3.least_dense(c3.Weighed(size, accuracy), np.full(4, 60.0), allowed=2.0)
    assert chosen.tolist() == [1, 2, 1, 2]


def test_columns_that_share_rows_stand_out_from_masks_of_the_same_sums():
    rng = np.random.default_rng(4)
    drawn = rng.random((60, 40)) < 0.2
    alike = np.repeat(drawn[:, ::2], 2, axis=1)
    found = [c3.together({"w": mask}, np.random.default_rng(5)) for mask in (drawn, alike)]
    assert abs(found[0]) < 5 < 20 < found[1]


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c3.get_config("laptop"))
    config.study.update(rates=(3e-3, 1e-2))
    with runner_in(tmp_path) as runner:
        evidence = c3.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
    assert len(evidence.primaries) == 2 * 4 * 3 and len({p.cell for p in evidence.primaries}) == 12
    assert len(evidence.primaries[0].values) == len(evidence.gate) == config.experiment.replicates
    c3.draw(evidence.rows)
