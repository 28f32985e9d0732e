"""The page and the tables of a recipe, from runs made up here."""

import json

import numpy as np
import pytest

from lth_jax import store
from lth_jax.measures.expected import FAILS, HOLDS, MISSING, Expected, Networks
from lth_jax.report import read_run
from lth_jax.report.literature import document, draw, write_literature
from lth_jax.report.recipes import (
    ONLY_FULL,
    Recipe,
    Trained,
    cells,
    curves,
    finding,
    judged,
    number_cells,
    seconds_of,
    stated,
    summary,
    values_at,
    with_barriers,
)
from lth_jax.report.stability import Stability
from tests.report import synthetic

SOURCE = "A | paper <2020>, table 1"
DENSE = Networks("dense")
EXPECTED = (
    Expected(DENSE, SOURCE, value=0.66, spread=0.01, tolerance=0.5),
    Expected(Networks("ticket", 0.22), SOURCE, value=0.9, spread=0.01),
    Expected(Networks("ticket", 0.22), SOURCE, Networks("random", 0.22), low=0.0),
    Expected(Networks("random", 0.22), SOURCE, DENSE, low=0.0),
    Expected(Networks("reinit", 0.22), SOURCE, Networks("ticket", 0.22), "early_stop_step", low=0.0,
             relative=True),
    Expected(Networks("ticket", 1e-4), SOURCE, DENSE, low=0.0),
    Expected(DENSE, SOURCE, metric="no_such_metric", low=0.0),
    Expected(Networks("ticket", 0.22), SOURCE, DENSE, high=0.5, only_full=True),
)  # fmt: skip
CONFIG = {"data": {"name": "digits"}}
RECIPE = Recipe("made", "A made <recipe>", "A & setting.", "It is short.", EXPECTED)


def trained(record, names=("one",), recipe=RECIPE):
    """A recipe whose runs are all the same made-up run."""
    return Trained(recipe, "short", dict.fromkeys(names, record), 100.0, "a command")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return read_run(store.Store(root), synthetic.write(root, config=CONFIG).path)


@pytest.fixture
def short(record):
    return trained(record)


def test_inequalities_are_judged_at_every_size_and_numbers_at_full_size(short):
    RECIPE.check()
    verdicts = [ONLY_FULL, ONLY_FULL, HOLDS, FAILS, HOLDS, MISSING, MISSING, ONLY_FULL]
    assert [one.verdict for one in judged(short)] == verdicts
    full = [one.verdict for one in judged(short._replace(size="full"))]
    assert full == [HOLDS, FAILS, *verdicts[2:-1], HOLDS]
    assert summary(short) == "5 findings: holds 2, does not hold 1, not measured 2."


def test_values_are_those_of_the_nearest_density(short):
    level = short.runs["one"].levels[3]
    assert 0.2 < level.density < 0.24
    rows = [i for i, m in enumerate(level.members) if m.arm == "ticket"]
    found = values_at(short, Networks("ticket", 0.22), "test_loss_final")
    assert list(found.values()) == level.results["test_loss_final"][rows].tolist()
    last = Networks("ticket", short.runs["one"].levels[-1].density)
    same = [values_at(short, one, "test_loss_final") for one in (last, last._replace(density=None))]
    assert same[0] == same[1] and len(same[0]) == 5
    assert values_at(short, Networks("ticket", 0.29), "test_loss_final") == {}
    assert list(values_at(short, DENSE, "test_loss_final")) == [0, 1, 2, 3, 4]


def test_runs_of_one_name_make_one_curve(record):
    made = trained(record, names=("a@0.1", "a@0.2", "b"))
    found = {one.place: one.points for one in curves(made)}
    assert set(found) == {
        (run, arm) for run in "ab" for arm in ("dense", "ticket", "reinit", "shuffle", "random")
    }
    assert len(found["b", "ticket"]) == 6 and list(found["a", "dense"]) == [1.0]


def test_the_numbers_of_the_literature_have_their_spread(short):
    assert [one.place for one in stated(short)] == [("one", "dense"), ("one", "ticket")]
    [(density, one)] = stated(short)[1].points.items()
    assert (density, *one[:3]) == (0.22, 0.9, 0.89, 0.91)


def panels(made):
    return {name: [axes.get_title() for axes in one.axes] for name, one in draw(made).items()}


def test_the_literature_has_a_panel_where_it_states_a_curve(short):
    assert panels(short) == {"curves": [""], "findings": ["", ""]}
    more = [Expected(Networks("ticket", d), SOURCE, value=0.8, spread=0.1) for d in (0.6, 0.4)]
    both = short._replace(recipe=RECIPE._replace(expected=[*EXPECTED, *more]))
    assert panels(both)["curves"] == ["Ours", "The literature"]
    none = short._replace(recipe=RECIPE._replace(expected=EXPECTED[:2]))
    assert list(panels(none)) == ["curves"]


def test_runs_of_one_density_are_drawn_as_dots(record):
    few = record._replace(levels=[record.levels[i] for i in (0, 2)])
    [axes] = draw(trained(few, names=("a", "b")))["curves"].axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["dense", "a"] and "b" in labels and "b, dense" not in labels


def test_the_table_names_units_and_densities(short):
    rows = [[], [], *cells(short)]
    assert {len(row) for row in rows[2:]} == {6}
    assert number_cells(short)[1][1] == "66.00 ± 1.00, tolerance 50.00 %"
    assert rows[3][0] == "Test accuracy at the end: ticket − random mask, 22 % kept"
    assert rows[3][2] == "at least 0.00 points" and rows[3][3].endswith("] points")
    assert rows[5][0] == "Early-stop step: reinitialised / ticket − 1, 22 % kept"
    assert rows[5][3].endswith("] %") and rows[6][3:5] == ["–", "–"] and rows[6][1] == MISSING
    apart = Expected(Networks("ticket", 0.1, "a"), "", Networks("ticket", 0.2, "b"), low=0.0)
    assert finding(RECIPE, apart).endswith("a, 10 % kept − b, 20 % kept")
    inside = Expected(Networks("ticket", 0.1, "a"), "", Networks("dense", run="a"), low=0.0)
    assert finding(RECIPE, inside).endswith(": a, ticket − dense, 10 % kept")


def test_barriers_become_a_metric_of_dense_networks_and_tickets(record):
    arrays = {"test_error_barrier": np.arange(10.0).reshape(5, 2), "alive": np.ones(5, bool)}
    found = [Stability(2, 0.36, 0, arrays), Stability(2, 0.36, 20, {})]
    level = with_barriers(record, 0, found).levels[2]
    values = level.results["test_error_barrier"]
    named = {(m.arm, m.replicate): v for m, v in zip(level.members, values, strict=True)}
    assert [named["ticket", i] for i in range(5)] == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert np.isnan([v for (arm, _), v in named.items() if arm != "ticket"]).all()
    assert "test_error_barrier" not in with_barriers(record, 0, found).levels[1].results


def test_shared_networks_count_once(record):
    assert seconds_of([record, record]) == pytest.approx(sum(3.2 + i for i in range(7)))


def test_the_page_escapes_texts_and_machines_read_the_result(short, tmp_path):
    page = write_literature(tmp_path, short).read_text()
    for text in (
        "A made &lt;recipe&gt;",
        "A &amp; setting.",
        "&lt;2020&gt;",
        "does not hold",
        "<svg",
    ):
        assert text in page
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["findings"][2]["verdict"] == HOLDS and found["findings"][2]["expected"] == [
        0,
        None,
    ]
    assert found["findings"][5]["estimate"] is None
    assert (tmp_path / "figures" / "findings.png").stat().st_size > 1000


def test_the_document_has_a_section_and_a_picture_of_each_recipe(short, tmp_path):
    page = document(tmp_path, [short, short._replace(size="full")])
    text = page.read_text()
    assert "## A made <recipe>: short size" in text and "*Short size.* It is short." in text
    assert r"A \| paper" in text
    assert "| A made <recipe> | `made:short` | digits | " in text
    for size in ("short", "full"):
        assert f"(literature/made-{size}-curves.svg)" in text
        assert (tmp_path / "literature" / f"made-{size}-findings.svg").stat().st_size > 1000
