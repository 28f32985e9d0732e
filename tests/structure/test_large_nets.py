"""ResNet-50 and ViT-B/16 on their shapes alone, and the benchmark that times them."""

import json
import sys

import jax
import pytest

from experiments.benchmarks import structure as benchmark
from lth_jax import structure as st


@pytest.mark.slow
def test_resnet_50():
    module = benchmark.ResNet50()
    found = st.find_groups(module.apply, *benchmark.shapes_of(module))
    assert found.unknown == () and all(g.exact for g in found.groups)
    # the stem, four streams, two inner groups for each of sixteen blocks
    assert len(found.groups) == 37
    assert sum(g.units for g in found.groups) == 64 + 3840 + 2 * (
        3 * 64 + 4 * 128 + 6 * 256 + 3 * 512
    )


@pytest.mark.slow
def test_vit_b_16():
    module = benchmark.ViTB16()
    found = st.find_groups(module.apply, *benchmark.shapes_of(module))
    assert found.unknown == () and all(g.exact for g in found.groups)
    # the stream; for each block heads, features of queries and keys and of values, hidden units
    assert len(found.groups) == 49
    assert sorted({g.units for g in found.groups}) == [12, 64, 768, 3072]


@pytest.mark.slow
def test_the_benchmark_prints_its_figures(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["structure", "--quick"])
    benchmark.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["benchmark"] == "structure"
    assert len(report["results"]) == 4
    assert all(jax.numpy.isfinite(line["ratio"]) for line in report["results"])
