"""No table cuts a number, whatever the width of the terminal."""

import re
import sys

import numpy as np
import pytest

from lth_jax import cli, coding, report, store
from lth_jax.coding import display as sizes
from lth_jax.report import sweeps, unit_rows
from lth_jax.text import TextTable, print_tables
from tests.report import synthetic, test_sweeps, test_units

WIDTHS = (60, 80, 120, None)
NUMBER = re.compile(r"[+−-]?\d[\d.,]*(?:±[\d.,]+)?(?: \(\d/\d\))?")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every kind of table that a command prints, as `TextTable`s."""
    root = tmp_path_factory.mktemp("runs")
    run = synthetic.write(root, nodes=synthetic.ladder(levels=3, diverged=[(2, "ticket", 3)]))
    record = report.read_run(store.Store(root), run.path)
    mask = {f"block_{i}/attention/kernel": np.eye(30, dtype=bool) for i in range(3)}
    ticket = coding.encode(mask, prunable=dict.fromkeys(mask, True))
    made, about = [], {"units": test_units.described(), "latency": test_units.timed()}
    units = unit_rows.read(*test_units.listed(tmp_path_factory.mktemp("units"), **about))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.text.print_tables", lambda *found, drop=False: made.extend(found))
        for words in (["ls"], ["show", run.run], ["size", run.run], ["du"],
                      ["compare", run.run, run.run]):  # fmt: skip
            assert cli.main([*words, "--root", str(root)]) == 0
    return [
        *made,
        report.level_table(record),
        sweeps.sweep_table(test_sweeps.sweep_of(nets=("mlp", "convnet"))),
        unit_rows.table(units),
        *sizes.file_tables(coding.table(ticket)),
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_table_loses_a_number(tables, width):
    assert len(tables) >= 12
    for table in tables:
        text = table.fitted(width)
        found = NUMBER.findall(text)
        assert "…" not in text
        for cell in (cell for row in table.rows for cell in row):
            assert all(number in found for number in NUMBER.findall(cell)), (cell, text)
        if width:
            assert max(map(len, text.splitlines())) <= width, text


def test_a_narrow_table_repeats_its_keys():
    table = TextTable(["level", "arm", "a", "b"], [["1", "ticket", "3.25±1.5", "4±2"]], keys=2)
    assert table.fitted(26).splitlines() == [
        *("level  arm            a", "    1  ticket  3.25±1.5", ""),
        *("level  arm       b", "    1  ticket  4±2"),
    ]


def test_columns_that_are_dropped_are_named():
    table = TextTable(["run", "best", "last"], [["lenet-1a2b3c4d", "98.25 %", "97.50 %"]])
    assert table.fitted(26, drop=True).splitlines() == [
        *("run                best", "lenet-1a2b3c4d  98.25 %"),
        *("A wider terminal has more", "columns: last."),
    ]


def test_texts_are_wrapped_between_words_and_empty_columns_left_out():
    table = TextTable(
        ["finding", "none", "n"], [["tickets train as well as dense nets do", "–", "5"]]
    )
    assert table.fitted(36).splitlines() == [
        *("finding                   n", "tickets train as well as  5", "dense nets do"),
    ]


def test_control_characters_are_shown(capsys):
    print_tables(TextTable(["leaf"], [["a\x1b[2J"]]))
    assert "a\\x1b[2J" in capsys.readouterr().out


def test_the_width_is_that_of_the_terminal(monkeypatch, capsys):
    table = TextTable(["level", "dense", "ticket"], [["1", "31.4±8.8", "30.1±2.0"]])
    monkeypatch.setenv("COLUMNS", "16")
    print_tables(table)
    assert len(capsys.readouterr().out.splitlines()) == 2  # a file is as wide as needed
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_tables(table)
    assert len(capsys.readouterr().out.splitlines()) == 5
