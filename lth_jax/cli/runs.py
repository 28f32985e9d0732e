"""`lth show`, `compare`, `report` and `spectrum`: the numbers of runs."""

import argparse
from pathlib import Path

from lth_jax.cli import arguments as shared


def add_commands(commands: shared.Commands) -> None:
    """Adds `show`, `compare`, `report` and `spectrum`."""
    show = shared.add_command(
        commands,
        "show",
        _show,
        "show a run's numbers, level by level, or a sweep's, cell by cell",
        "lth show lenet-1a2b3c4d",
        "lth show lenet-1a2b3c4d --json > numbers.json",
        as_json=True,
    )
    shared.add_run(show, "target", help=shared.EITHER)
    compare = shared.add_command(
        commands,
        "compare",
        _compare,
        "compare runs level by level, with the fields in which they differ",
        "lth compare lenet-1a2b3c4d lenet-5e6f7a8b",
        "lth compare lenet-1a2b lenet-5e6f --metric test_loss_final --arm random",
        as_json=True,
    )
    shared.add_run(compare, "first", help="the run that the others are compared with")
    shared.add_run(compare, "others", nargs="+", help="at least one other run")
    compare.add_argument("--metric", help="such as test_loss_final (default: test accuracy)")
    compare.add_argument("--arm", default="ticket", help="ticket, or a control (default: ticket)")
    drawn = shared.add_command(
        commands,
        "report",
        _report,
        "draw the report of a run or a sweep and print the path of its page",
        "lth report lenet-1a2b3c4d",
    )
    shared.add_run(drawn, "target", help=shared.EITHER)
    shared.add_command(
        commands,
        "spectrum",
        _spectrum,
        "show a run's curvature, as `python -m experiments.spectrum` measured it",
        "lth spectrum lenet-1a2b3c4d",
        one_run=True,
        as_json=True,
    )


def _show(arguments: argparse.Namespace) -> None:
    from lth_jax.report import level_table, read_run, unit_rows
    from lth_jax.report.display import headline_metric, verdict
    from lth_jax.report.tables import dense_mean, difference_rows, summary_rows
    from lth_jax.store import Store
    from lth_jax.text import print_tables

    path = shared.find_folder(arguments, arguments.target)
    if shared.is_sweep(path):
        _show_sweep(path, arguments.json)
        return
    info = shared.find(arguments, str(path))
    store = Store(shared.root_of(info))
    run, units = read_run(store, info.path), unit_rows.read(store, info.path)
    if arguments.json:
        rows = summary_rows(run) + (unit_rows.rows(units) if units else [])
        shared.print_json({"run": info.run, "config_hash": info.config_hash, "rows": rows})
        return
    shared.print_state(info)
    print_tables(level_table(run))
    metric = headline_metric(run)
    rows = difference_rows(run, metric) if metric else []
    print(verdict(rows, dense_mean(run, metric) if metric else None))
    if units:
        print_tables(unit_rows.table(units))


def _show_sweep(path: Path, as_json: bool) -> None:
    from lth_jax.report.sweeps import cell_rows, read_sweep, sweep_table
    from lth_jax.store import Store
    from lth_jax.text import counted, print_tables

    sweep = read_sweep(Store(path.resolve().parents[1]), path)
    if as_json:
        shared.print_json({"sweep": sweep.name, "cells": sweep.settings, "rows": cell_rows(sweep)})
        return
    finished = len({row["run"] for row in sweep.rows})
    print(f"{sweep.name}: {counted(len(sweep.settings), 'cell')}, {finished} finished")
    print_tables(sweep_table(sweep))


def _compare(arguments: argparse.Namespace) -> None:
    from lth_jax.report import compare, read_run
    from lth_jax.report.display import quantity
    from lth_jax.store import Store, StoreError
    from lth_jax.text import TextTable, print_tables

    named = [shared.find(arguments, text) for text in (arguments.first, *arguments.others)]
    runs = [read_run(Store(shared.root_of(info)), info.path) for info in named]
    try:
        found = compare.compare(runs, metric=arguments.metric, arm=arguments.arm)
    except ValueError as error:  # it names `metric` or `arm`, which are options here
        raise StoreError(str(error).replace("`", "`--", 1)) from error
    if arguments.json:
        shared.print_json(found._asdict())
        return
    names = compare.short_names([info.run for info in named])
    shown = quantity(found.metric)
    title = f"{shown.title}, {found.arm}, 95 % intervals"
    tables = [TextTable(*compare.level_cells(found, names), title)]
    if found.differences:
        title = f"{shown.label}: differences"
        tables.append(TextTable(*compare.difference_cells(found, names), title))
    if found.fields:
        tables.append(TextTable(*compare.field_cells(found, names), "Fields that differ"))
    print_tables(*tables)
    if not found.fields:
        print("The configurations are equal.")


def _report(arguments: argparse.Namespace) -> None:
    from lth_jax.report import write_report
    from lth_jax.report.sweep_page import write_sweep_report
    from lth_jax.store import Store

    path = shared.find_folder(arguments, arguments.target)
    if shared.is_sweep(path):
        print(write_sweep_report(Store(path.resolve().parents[1]), path))
        return
    info = shared.find(arguments, str(path))
    print(write_report(Store(shared.root_of(info)), info))


def _spectrum(arguments: argparse.Namespace) -> None:
    from lth_jax.report import spectra, write_report
    from lth_jax.store import Store, StoreError
    from lth_jax.text import print_tables

    info = shared.find(arguments, arguments.run)
    store = Store(shared.root_of(info))
    found = spectra.read(store, info.path)
    if found is None:
        command = f"python -m experiments.spectrum {info.run}"
        raise StoreError(f"{info.run} has no spectra yet; `{command}` computes them.")
    if arguments.json:
        rows = spectra.rows(found)
        shared.print_json({"run": info.run, "config_hash": info.config_hash, "rows": rows})
        return
    print_tables(spectra.table(found))
    print(f"page: {write_report(store, info)}")
