"""What a sweep's tables and figures hold, from rows made up here."""

import numpy as np
import pytest

from lth_jax import store
from lth_jax.report import plotting
from lth_jax.report.rendering import pictures
from lth_jax.report.sweep_page import (
    against_field,
    curves,
    draw,
    heat_map,
    is_logarithmic,
    write_sweep_report,
)
from lth_jax.report.sweeps import (
    SweepRecord,
    best_cell,
    cell_rows,
    last_rows,
    read_sweep,
    sweep_cells,
)
from tests.report import synthetic

RATE, SEED, NET = "experiment.optimizer.learning_rate", "experiment.seed", "experiment.model.name"


def value(setting, arm, replicate):
    return 0.5 + setting[RATE] + 0.1 * (arm == "ticket") + 0.01 * replicate + 0.02 * setting[SEED]


def row(run, setting, arm, level, replicate, **changes):
    who = {"run": run, "arm": arm, "level": level, "replicate": replicate, "density": 0.5**level}
    result = {"metric": "test_accuracy_final", "value": value(setting, arm, replicate)}
    return {**setting, **who, **result, **changes}


def sweep_of(rates=(0.1, 0.2), seeds=(0, 1), nets=("mlp",), levels=2):
    settings = {
        f"cell-{rate}-{seed}-{net}": {RATE: rate, SEED: seed, NET: net}
        for rate in rates
        for seed in seeds
        for net in nets
    }
    rows = [
        row(run, setting, arm, level, replicate)
        for run, setting in settings.items()
        for arm, level in [("dense", 0), *(("ticket", n + 1) for n in range(levels))]
        for replicate in range(2)
    ]
    return SweepRecord("demo-0", settings, rows)


def test_a_cells_rows_are_means_over_its_replicates():
    sweep = sweep_of()
    found = {(r["run"], r["arm"], r["level"]): r for r in cell_rows(sweep)}
    assert len(found) == 4 * 3
    mine = found["cell-0.2-1-mlp", "ticket", 2]
    assert mine["values"] == [value(mine, "ticket", r) for r in range(2)]
    assert mine["mean"] == pytest.approx(sum(mine["values"]) / 2)
    assert mine["low"] < mine["mean"] < mine["high"] and mine["density"] == 0.25


def test_a_diverged_network_is_left_out_and_counted():
    sweep = sweep_of()
    sweep.rows[1]["value"] = None  # replicate 1 of the first cell's dense parents
    [mine] = [r for r in cell_rows(sweep) if r["run"] == "cell-0.1-0-mlp" and r["arm"] == "dense"]
    assert mine["replicates"] == 1 and mine["values"][1] is None and mine["low"] is None


def test_the_table_shows_each_cell_at_its_last_level():
    sweep = sweep_of()
    rows = [r for r in sweep.rows if (r["run"], r["level"]) != ("cell-0.1-0-mlp", 2)]
    lines = sweep_cells(sweep._replace(rows=rows))
    assert lines[0] == ["learning_rate", "seed", "name", "kept %", "dense", "ticket", "run"]
    assert [line[3] for line in lines[1:]] == ["50", "25", "25", "25"]
    assert {r["level"] for r in last_rows(rows, sweep.metric)} == {0, 1, 2}


def test_a_cell_that_is_not_finished_says_so():
    sweep = sweep_of()
    rows = [r for r in sweep.rows if r["run"] != "cell-0.1-0-mlp"]
    first = sweep_cells(sweep._replace(rows=rows))[1]
    assert first[-3:] == ["–", "–", "cell-0.1-0-mlp (not finished)"]
    assert sweep_cells(sweep._replace(rows=[]))[0][-1] == "run"


def test_seeds_are_pooled_and_other_fields_have_panels():
    figure = against_field(sweep_of(nets=("mlp", "conv")), RATE)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == [
        "name\u00a0=\u00a0mlp",
        "name\u00a0=\u00a0conv",
    ]
    dense, ticket = figure.axes[0].get_lines()
    np.testing.assert_allclose(np.asarray(dense.get_xdata(), float), [0.1, 0.2])
    np.testing.assert_allclose(
        np.asarray(ticket.get_ydata(), float), [100 * (0.6 + r + 0.015) for r in (0.1, 0.2)]
    )


def test_numbers_have_a_figure_and_two_fields_a_map():
    drawn, captions = draw(sweep_of(nets=("mlp", "conv")))
    assert list(drawn) == list(captions) == ["experiment_optimizer_learning_rate", "density", "map"]
    assert list(draw(sweep_of(rates=(0.1,)))[0]) == ["density"]
    many = draw(sweep_of(nets=[f"net{i}" for i in range(9)]))[0]
    assert "9 panels" in many["experiment_optimizer_learning_rate"] and "18" in many["density"]
    assert draw(sweep_of()._replace(rows=[])) == ({}, {})


def test_the_map_holds_the_means_of_each_arm():
    figure = heat_map(sweep_of(nets=("mlp", "conv")))
    dense, ticket = figure.axes[:2]
    assert (dense.get_title(), ticket.get_title()) == ("dense", "ticket")
    np.testing.assert_allclose(ticket.images[0].get_array()[:, 0], [100 * 0.815, 100 * 0.715])


def test_lists_and_words_have_a_place_on_the_map():
    sweep = sweep_of(nets=("mlp", "conv"))
    for row in (*sweep.rows, *sweep.settings.values()):
        row[NET] = [row[NET], 3] if row[NET] == "mlp" else None
    dense = heat_map(sweep).axes[0]
    assert [text.get_text() for text in dense.get_xticklabels()] == ["None", "['mlp', 3]"]


def test_curves_have_a_panel_for_each_setting_on_one_density_axis():
    figure = curves(sweep_of())
    assert [axes.get_title() for axes in figure.axes] == [
        "learning_rate\u00a0=\u00a00.1",
        "learning_rate\u00a0=\u00a00.2",
    ]
    assert all(axes.xaxis_inverted() for axes in figure.axes)
    ticket = next(line for line in figure.axes[1].lines if line.get_label() == "ticket")
    np.testing.assert_allclose(ticket.get_xdata(), [0.5, 0.25])


def test_the_best_setting_pools_seeds_and_is_called_a_choice(tmp_path):
    best = best_cell(sweep_of())
    assert best["setting"] == "learning_rate\u00a0=\u00a00.2" and best["value"].startswith("81.5 [")
    assert best_cell(sweep_of(rates=(0.1,))) is None


def test_a_sweep_of_which_nothing_is_finished_has_a_page(tmp_path):
    config = {"cells": [{"setting": {RATE: 0.1}, "run": "tiny-00000000"}]}
    sweep = store.open_sweep(tmp_path, name="demo", config=config)
    page = write_sweep_report(store.Store(tmp_path), sweep.path).read_text()
    assert "1 cell, 0 finished" in page and "tiny-00000000 (not finished)" in page


def test_a_sweep_in_which_all_diverged_is_drawn_without_a_warning(recwarn):
    sweep = sweep_of(nets=("mlp", "conv"))
    lost = sweep._replace(rows=[row | {"value": None} for row in sweep.rows])
    shown, omitted = pictures(*draw(lost))
    assert [one.name for one in shown] == ["map"] and len(omitted) == 2
    assert best_cell(lost) is None
    assert [str(warning.message) for warning in recwarn] == []


def test_a_folder_that_is_no_sweep_is_named(tmp_path):
    with pytest.raises(store.StoreError, match="is not a sweep"):
        read_sweep(store.Store(tmp_path), tmp_path)


def test_runs_with_a_page_are_links(tmp_path, monkeypatch):
    monkeypatch.setattr(plotting, "image", lambda figure, kind: b"<svg/>")
    run = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=2, replicates=2)).run
    cells = [{"setting": {RATE: 0.1}, "run": run}, {"setting": {RATE: 1.0}, "run": "missing"}]
    shelf = store.Store(tmp_path)
    sweep = store.open_sweep(tmp_path, name="demo", config={"cells": cells})
    link = f"../../../{run}/report/index.html"
    assert link not in write_sweep_report(shelf, sweep.path).read_text()
    (tmp_path / run / "report").mkdir()
    (tmp_path / run / "report" / "index.html").touch()
    page = write_sweep_report(shelf, sweep.path)
    assert f'<a href="{link}">{run}</a>' in page.read_text() and (page.parent / link).is_file()


def test_the_page_has_the_fixed_fields_and_the_command(tmp_path):
    configs = [{"optimizer": {"rate": rate, "name": "sgd"}, "seed": 3} for rate in (0.1, 0.2)]
    runs = [synthetic.write(tmp_path, nodes=[], config=config).run for config in configs]
    cells = [{"setting": {RATE: i}, "run": run} for i, run in enumerate([*runs, "missing"])]
    path = store.open_sweep(tmp_path, name="demo", config={"cells": cells}).path
    page = write_sweep_report(store.Store(tmp_path), path).read_text()
    assert "<dt>optimizer.name</dt><dd>&#34;sgd&#34;</dd>" in page and "<dt>seed</dt>" in page
    assert "<dt>optimizer.rate</dt>" not in page and "<details><summary>Configuration" in page
    assert f"<pre>lth report {path.name} --root {tmp_path}</pre>" in page
    assert "Fields that later versions added" not in page  # no command made the runs
    env = {"sweep": path.name, "command": ["python", "a b"]}
    with store.open_run(tmp_path, name="ladder", config=configs[1], env=env):
        pass
    page = write_sweep_report(store.Store(tmp_path), path).read_text()
    assert f"<pre>python &#39;a b&#39;\nlth report {path.name}" in page
    assert "Fields that later versions added" in page


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1e-3, 1e-2], True), ([0.001, 0.003, 0.01], True), ([16, 32, 64], True), ([1, 2, 3], False),
     ([0, 1, 100], False), ([0.2, 0.4], False), ([5], False)],
)  # fmt: skip
def test_geometric_numbers_have_a_log_axis(values, expected):
    assert is_logarithmic(values) is expected
