"""`python -m experiments.export`: programs of a finished run."""

import numpy as np
import pytest

from experiments import build, export, runner
from experiments.finished import open_finished
from lth_jax import exchange
from tests.experiments import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny.get_config()
    config.machine.workdir = str(tmp_path_factory.mktemp("runs"))
    config.experiment.prune.update(rate=0.9, levels=1)  # leaves dead units
    return config, runner.run(config, [])


@pytest.mark.slow
def test_programs_of_a_run(run, tmp_path, capsys):
    pytest.importorskip("flatbuffers")
    config, path = run
    command = [path.name, "--root", str(path.parent), "--level", "1", "--batch", "4"]
    whole, small = str(tmp_path / "a.stablehlo"), str(tmp_path / "b.stablehlo")
    assert export.main([*command, whole]) == 0
    assert export.main([*command, small, "--compact"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "bytes, dense" in first and first.partition("dense")[2] == second.partition("dense")[2]
    found = open_finished(config.machine, path.name)
    x = np.asarray(found.loaded.test.x[:4])
    one = found.result.ticket(1)
    model = build.task(found.experiment, found.loaded).trainer.model
    wanted = model.apply(one.trained, {}, x, train=False)[0]
    for file in (whole, small):
        np.testing.assert_allclose(exchange.load_stablehlo(file)(x), wanted, rtol=1e-4, atol=1e-5)
    for words, message in {
        (whole,): "a.stablehlo', which exists; `overwrite` replaces it.",
        (str(tmp_path / "x.pb"),): "x.pb'; it must end in .stablehlo or .onnx.",
        (whole, "--arm", "twin"): "unknown arm 'twin'",
    }.items():
        assert export.main([*command, *words]) == 2
        assert message in capsys.readouterr().err
