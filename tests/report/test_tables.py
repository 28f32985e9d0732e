import io
import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from scipy import stats

from lth_jax.report import tables
from tests.report import synthetic

METRIC = "test_accuracy_final"


def only(rows, **wanted):
    (row,) = [row for row in rows if all(row[k] == v for k, v in wanted.items())]
    return row


def values_of(run, level, arm):
    found = run.levels[level]
    return np.array(
        [v for v, m in zip(found.results[METRIC], found.members, strict=True) if m.arm == arm]
    )


def test_there_is_one_row_per_seed_and_metric(run):
    rows = tables.seed_rows(run)
    assert len(rows) == (5 + 3 * 4 * 5) * 6
    row = only(rows, arm="random", level=3, replicate=4, metric=METRIC)
    assert row["value"] == pytest.approx(values_of(run, 3, "random")[4])
    assert row["run"] == run.info.run
    assert row["sparsity"] == pytest.approx(1 - run.levels[3].density)


def test_summaries_agree_with_scipy_and_count_the_lost(run):
    rows = tables.summary_rows(run)
    whole = only(rows, arm="ticket", level=1, metric=METRIC)
    values = values_of(run, 1, "ticket").astype(np.float64)
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    got = (whole["mean"], whole["low"], whole["high"])
    np.testing.assert_allclose(got, (values.mean(), *interval))
    assert whole["replicates"] == 5

    lost = only(rows, arm="ticket", level=2, metric=METRIC)
    assert lost["replicates"] == 4
    assert [v is None for v in lost["values"]] == [False, False, False, True, False]
    assert lost["mean"] == pytest.approx(np.mean([v for v in lost["values"] if v is not None]))


def test_summaries_are_what_the_design_says_machines_read(run):
    rows = json.loads(json.dumps(tables.summary_rows(run), allow_nan=False))
    fields = "arm level density metric mean low high replicates values".split()
    assert all(list(row) == fields for row in rows)


def test_values_stand_in_the_order_of_the_replicates(read):
    nodes = synthetic.ladder(levels=1)
    order = np.random.default_rng(0).permutation(20)
    want = nodes[1].results[METRIC][5:10]
    nodes[1] = nodes[1].take(order)
    row = only(tables.summary_rows(read(nodes)), arm="reinit", level=1, metric=METRIC)
    assert row["values"] == pytest.approx(want.tolist())


def test_differences_are_paired_by_replicate(run):
    rows = tables.difference_rows(run, METRIC)
    assert len(rows) == 3 * 4
    row = only(rows, control="random", level=2)
    difference = (values_of(run, 2, "ticket") - values_of(run, 2, "random")).astype(np.float64)
    kept = difference[np.isfinite(difference)]
    assert row["mean"] == pytest.approx(kept.mean(), abs=1e-6)
    want = stats.ttest_1samp(kept, 0).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx(tuple(want), abs=1e-6)
    assert row["replicates"] == 4


def test_the_dense_parent_is_compared_with_every_level(run):
    row = only(tables.difference_rows(run, METRIC), control="dense", level=3)
    want = (values_of(run, 3, "ticket") - values_of(run, 0, "dense")).mean()
    assert row["mean"] == pytest.approx(want, abs=1e-6)


def test_leaves_overlaps_and_curves_have_a_row_each(run):
    leaf = only(tables.leaf_rows(run), arm="ticket", level=3, replicate=0, leaf="Dense_2/kernel")
    assert leaf["size"] == 300
    assert leaf["density"] == pytest.approx(run.levels[3].leaf_densities["Dense_2/kernel"][0])
    total = only(tables.overlap_rows(run), level=1, first=0, second=1, leaf="total")
    assert total["chance"] < total["intersection_over_union"] < 1
    assert 0 < total["kappa"] < 1
    curve = only(tables.curve_rows(run), arm="dense", replicate=2, metric="train_loss", step=1500)
    assert curve["value"] == pytest.approx(run.levels[0].curves["train_loss"][-1, 2])


def test_files_hold_the_same_rows(run):
    rows = tables.seed_rows(run)
    from_parquet = parquet.read_table(pa.BufferReader(tables.parquet_bytes(rows)))
    assert from_parquet.to_pylist() == rows
    from_csv = csv.read_csv(io.BytesIO(tables.csv_bytes(rows)))
    assert from_csv.to_pylist() == rows
    assert sum(row["value"] is None for row in from_csv.to_pylist()) == 6


def test_a_level_where_all_diverged_still_fits_every_table(read):
    lost = [(1, arm, r) for arm in synthetic.ARMS for r in range(2)]
    run = read(synthetic.ladder(levels=1, replicates=2, diverged=lost))
    row = only(tables.summary_rows(run), arm="ticket", level=1, metric=METRIC)
    assert (row["mean"], row["low"], row["replicates"]) == (None, None, 0)
    assert only(tables.difference_rows(run, METRIC), control="dense")["mean"] is None
    rows = [row for row in tables.seed_rows(run) if row["level"] == 1]
    assert csv.read_csv(io.BytesIO(tables.csv_bytes(rows))).num_rows == len(rows)
    assert parquet.read_table(pa.BufferReader(tables.parquet_bytes(rows))).num_rows == len(rows)


def test_a_column_that_the_first_row_lacks_is_written(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(tables.parquet_bytes([{"a": 1}, {"b": 2.0}]))
    assert tables.read_parquet(tmp_path / "rows.parquet") == [
        {"a": 1, "b": None},
        {"a": None, "b": 2.0},
    ]
