"""Sweeps and atlases from their folders, as tables."""

import pytest

import lth_jax as lth
from lth_jax import store
from lth_jax.measures.claims import Contrasts, Control, Evidence, Protocol, arm_rows, draws
from lth_jax.measures.verdicts import SUPPORTED
from lth_jax.report import answers
from lth_jax.report.atlas import write_atlas
from lth_jax.report.chapters import Chapter
from tests.report import synthetic


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two finished cells and one that is not."""
    root = tmp_path_factory.mktemp("runs")
    done = [
        synthetic.write(root, nodes=synthetic.ladder(levels=1, replicates=2), config={"rate": rate})
        for rate in (0.1, 0.2)
    ]
    settings = [{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3, "widths": [3, 4]}]
    runs = [*(info.run for info in done), "ladder-00000000"]
    cells = [{"setting": s, "run": run} for s, run in zip(settings, runs, strict=True)]
    store.open_sweep(root, name="demo", config={"cells": cells})
    return lth.load_sweep("demo", root=root)


def test_a_sweep_is_tidy(sweep):
    frame = sweep.to_pandas()
    wanted = {"rate", "run", "arm", "level", "replicate", "density", "metric", "value"}
    assert wanted <= set(frame) and len(frame) == 2 * (2 + 2 * 4) * 6
    assert sweep.to_arrow().to_pandas().equals(frame)
    one = sweep.run(sweep.cells()[0]["run"])
    values = [row["value"] for row in one.seeds()]
    assert values == frame[frame["run"] == one.path.name]["value"].tolist()


def test_a_sweep_has_means_and_cells(sweep):
    rows = sweep.table("test_accuracy_final")
    assert len(rows) == 2 * 5 and all(row["low"] < row["mean"] < row["high"] for row in rows)
    assert [(row["rate"], row["finished"]) for row in sweep.cells()] == [
        *[(0.1, True), (0.2, True), (0.3, False)]
    ]
    assert sweep.cells()[2]["widths"] == "[3, 4]" and sweep.cells()[0]["widths"] is None
    assert "2 of 3 cells" in repr(sweep)
    with pytest.raises(ValueError, match=r"`metric` is 'x'; .* It must be one of: "):
        sweep.table("x")
    with pytest.raises(store.StoreError, match=r"unknown sweep 'x': the sweeps in .* are demo-"):
        lth.load_sweep("x", root=sweep.store.root)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "atlas" / "small"
    protocol = Protocol("X1", *["words"] * 3, "set-up", ("a", "b"), *["words"] * 4)
    values = {
        "a": draws(lambda rng: 3 + rng.normal(), range(12)),
        "b": draws(lambda rng: rng.normal(), range(12)),
    }
    minus = Contrasts(values, "points")
    evidence = Evidence([minus("a", "b")], arm_rows("accuracy", values))
    controls = [Control("known", SUPPORTED, [minus("a", "b")])]
    stamp = answers.stamp_of(protocol, {"delta": 1.0}, "small")
    place = folder / "X1" / "discovery"
    answers.write_stamp(place, stamp)
    answers.write_answer(place, protocol, evidence, controls, stamp["hash"], 1.0, ())
    found = {"discovery": answers.read_answer(place, "small")}
    write_atlas(folder, "small", [Chapter(protocol._asdict(), found, None, "command")])
    return lth.load_atlas(folder)


def test_an_atlas_has_verdicts_and_seeds(atlas):
    [row] = atlas.table()
    assert (row["claim"], row["verdict"], row["seeds"]) == ("X1", "supported", 12)
    frame = atlas.to_pandas()
    assert {"claim", "arm", "replicate", "metric", "value"} <= set(frame) and len(frame) == 24
    assert atlas.to_arrow().num_rows == 24 and "supported" in repr(atlas)
    with pytest.raises(store.StoreError, match=r"no atlas in .*full; there are small;"):
        lth.load_atlas(atlas.path.with_name("full"))


def test_a_table_in_a_notebook_is_escaped_and_cut():
    rows = [{"name": "<b>", "value": None}] + [{"name": "a", "value": -0.5}] * 300
    html = lth.lottery.Table(rows)._repr_html_()
    assert "&lt;b&gt;" in html and "<td>–</td>" in html and "101 more rows" in html
    assert html.count("<tr>") == 1 + 200
    assert str(lth.lottery.Table(rows)).splitlines()[:3] == [
        "name  value", "<b>       –", "a      -0.5"
    ]  # fmt: skip
