"""ResNet-50 and ViT-B/16 on their shapes alone, and the benchmark that times them."""

import importlib.util
import json

import jax
import pytest

from experiments.benchmarks import structure as benchmark
from lth_jax import structure as st


@pytest.mark.slow
def test_resnet_50():
    found = st.find_groups(*benchmark.shapes_of("resnet50"))
    assert found.unknown == () and all(g.exact for g in found.groups)
    # the stem, four streams, two inner groups for each of sixteen blocks
    assert len(found.groups) == 37
    assert sum(g.units for g in found.groups) == 64 + 3840 + 2 * (
        3 * 64 + 4 * 128 + 6 * 256 + 3 * 512
    )


@pytest.mark.slow
def test_vit_b_16():
    found = st.find_groups(*benchmark.shapes_of("vit_base"))
    assert found.unknown == () and all(g.exact for g in found.groups)
    # the stream; for each block the heads, which one kernel makes, and the hidden units
    assert len(found.groups) == 25
    assert sorted({g.units for g in found.groups}) == [12, 768, 3072]
    features = st.find_groups(*benchmark.shapes_of("vit_base"), prefer=st.minor)
    assert sorted({g.units for g in features.groups}) == [64, 768, 3072]


@pytest.mark.slow
def test_the_benchmark_prints_its_figures(capsys):
    benchmark.main("structure", benchmark.__doc__, benchmark.measure, argv=["--quick"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["benchmark"] == "structure"
    beside = importlib.util.find_spec("torch_pruning") is not None
    assert len(report["results"]) == (19 if beside else 10)
    assert all(line["ours"] > 0 for line in report["results"][:4])
    assert all(jax.numpy.isfinite(line["ratio"]) for line in report["results"][4:10])
