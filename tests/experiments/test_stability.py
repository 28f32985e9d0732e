"""The command that measures stability, with its page (other tests of commands draw none)."""

import sys

import numpy as np
import pytest

from experiments import stability
from lth_jax import store
from lth_jax.store.analyses import analyses


@pytest.mark.slow
def test_every_run_of_an_analysis_lists_the_barriers_of_all(tmp_path, monkeypatch):
    words = [
        "--config=experiments/configs/stability.py:smoke",
        "--rewind=0,90",
        "--levels=0",
        "--chunk=4",
    ]
    place = [f"--config.machine.workdir={tmp_path}", "--config.machine.compilation_cache=False"]
    monkeypatch.setattr(sys, "argv", ["stability", *words, *place])
    stability.main()
    runs = store.list_runs(tmp_path)
    assert len(runs) == 2
    for info in runs:
        listed = analyses(info.path, "stability")
        assert sorted(entry["labels"]["rewind"] for entry in listed) == [0, 90]
    for entry in listed:
        arrays = store.Store(tmp_path).read(entry["key"]).arrays
        error, barrier = arrays["test_error"], arrays["test_error_barrier"]
        assert error.shape == (3, 1, 11) and arrays["alive"].all()
        ends = (error[..., 0] + error[..., -1]) / 2
        np.testing.assert_allclose(barrier, error.max(-1) - ends, atol=1e-6)
        assert (np.ptp(arrays["train_loss"], axis=-1) > 0).all()  # the children did part
    page = tmp_path / runs[0].run / "report" / "index.html"
    assert 'aria-label="instability"' in page.read_text()
