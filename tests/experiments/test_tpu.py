"""Training segments of three families compile for four TPU chips that are not there.

They need the extra `tpu`; `.ci/run` installs it after the other tests, since libtpu looks for chips
whenever JAX starts.
"""

import functools

import pytest

pytest.importorskip("libtpu", reason='needs `pip install -e ".[tpu]"`')

from experiments.benchmarks import tpu
from experiments.benchmarks.tasks import task
from lth_jax.analysis import topologies
from lth_jax.population.planning import program_bytes

pytestmark = pytest.mark.slow
TOPOLOGY, MEMBERS = "v5e:2x2", 4


@pytest.fixture(scope="module")
def program():
    """`(family, chips) -> compiled program` of `MEMBERS` members on each chip."""

    @functools.cache
    def compiled(family, chips):
        there = topologies.devices(TOPOLOGY)[:chips]
        return tpu.compiled(task(family, steps=8), MEMBERS * chips, there)

    return compiled


@pytest.mark.parametrize("family", ["mlp", "conv", "lstm"])
def test_segments_compile_for_four_chips_without_collectives(program, family):
    assert len(topologies.devices(TOPOLOGY)) == topologies.TOPOLOGIES[TOPOLOGY] == 4
    assert not topologies.COLLECTIVES.findall(program(family, 4).as_text())


@pytest.mark.parametrize("family", ["mlp", "lstm"])
def test_a_plan_for_two_chips_holds_on_each_of_four(program, family):
    four, two = (program_bytes(program(family, chips)) for chips in (4, 2))
    assert four == pytest.approx(two, rel=0.2)
