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
from lth_jax.coding.size import mask_bytes, order_saving
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


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(c3.get_config("laptop"))
    config.study.update(rates=(1e-2,), pilot_seeds=2)
    with runner_in(tmp_path) as runner:
        evidence = c3.gather(runner, config)
    assert all(
        np.isfinite(part.values).all() for part in (*evidence.primaries, *evidence.secondary)
    )
    assert len(evidence.primaries[0].values) == len(evidence.gate) == config.experiment.replicates
    c3.draw(evidence.rows)
