"""Training segments of three families compile for four TPU chips that are not there.

They need the extra `tpu`; `.ci/run` installs it after the other tests, since libtpu looks for chips
whenever JAX starts.
"""

import pytest

pytest.importorskip("libtpu", reason='needs `pip install -e ".[tpu]"`')

from experiments.benchmarks import tpu
from experiments.benchmarks.tasks import task
from lth_jax.population.planning import program_bytes

pytestmark = pytest.mark.slow
TOPOLOGY, MEMBERS = "v5e:2x2", 4


@pytest.mark.parametrize("family", ["mlp", "conv", "lstm"])
def test_segments_compile_for_four_chips_without_collectives(family):
    one, chips = task(family, steps=8), tpu.devices(TOPOLOGY)
    assert len(chips) == tpu.TOPOLOGIES[TOPOLOGY]
    program = tpu.compiled(one, MEMBERS * len(chips), chips)
    assert not tpu.COLLECTIVES.findall(program.as_text())
    # A plan made for two chips holds on each of four.
    half = program_bytes(tpu.compiled(one, MEMBERS * 2, chips[:2]))
    assert program_bytes(program) == pytest.approx(half, rel=0.2)
