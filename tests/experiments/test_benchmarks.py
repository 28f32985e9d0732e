"""What all benchmarks share: rows, the JSON at the end, and results that are committed."""

import importlib
import json
from pathlib import Path

import pytest

from experiments.benchmarks import history, keras_zoo, report
from lth_jax.analysis import ratios
from lth_jax.report import benchmarks

FOLDER = Path(report.__file__).parent
ALTERNATIVES = {"expert", "history"}  # what measures nothing itself
PROGRAMS = sorted(
    {p.stem for p in FOLDER.glob("*.py") if '__name__ == "__main__"' in p.read_text()}
    - ALTERNATIVES
)
FIELDS = {"better", "judged", "case", "ours", "alternatives", "ratio", "spread", "goal", "met"}


def two_rows(options):
    figures = {"ours": [1.0, 2.0, 3.0], "theirs": [2.0, 4.0, 3.0]}
    yield ratios.beside("seconds", figures, "theirs", goal=0.6)
    yield ratios.beside("rates", figures, "theirs", goal=0.6, most=False)


def test_ratios_are_medians_of_pairs_and_goals_have_a_direction():
    seconds, rates = two_rows(None)
    assert seconds["ratio"] == rates["ratio"] == 0.5 and seconds["spread"] == [0.5, 1.0]
    assert (seconds["met"], rates["met"]) == (True, False)
    assert seconds["ours"] == 2.0 and seconds["alternatives"] == {"theirs": 3.0}
    plain = ratios.row("alone", 1.0)
    assert plain.keys() == FIELDS and plain["ratio"] is plain["met"] is None
    judged = ratios.row("own goal", 3.0, pairs=[0.1], goal=2.0, judged=3.0)
    assert judged["met"] is False


def test_the_last_line_is_json_and_results_are_written_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    report.main("made", "Made up.", two_rows, argv=["--quick"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() == {"benchmark", "machine", "results"}
    assert not list(tmp_path.iterdir())
    report.main("made", "Made up.", two_rows, argv=["--commit-results"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    path = tmp_path / "results" / "made.jsonl"
    [written] = map(json.loads, path.read_text().splitlines())
    assert printed.items() <= written.items()
    assert written["options"] == {"quick": False, "commit_results": True}
    assert written["commit"] == report.commit() and written["date"][:2] == "20"
    assert written["environment"]["versions"]["jax"]
    report.main("made", "Made up.", two_rows, argv=["--commit-results"])
    first, _ = path.read_text().splitlines()  # appended
    assert json.loads(first) == written


def test_the_page_of_results_is_that_of_the_committed_runs():
    runs = history.read()
    assert (report.ROOT / "docs" / "results.md").read_text() == benchmarks.markdown(runs)
    assert len(benchmarks.draw(runs).axes) >= 1
    page = (report.ROOT / "docs" / "keras_zoo.md").read_text()
    assert page == keras_zoo.page(runs["keras_zoo"])


def test_the_latest_row_of_each_keras_network_is_shown_with_its_reasons():
    def made(name, **more):
        fields = {"image": 32, "weights": 2_000_000, "weights_left": 0.45, "groups": 3, "units": 9,
                  "analysis_seconds": 2.0, "inexact": 1, "error_of_outputs": 1e-7,
                  "error_of_gradients": 2e-7, "pinned": {"tied": 2}}  # fmt: skip
        return ratios.row(name, 1e-7, goal=1e-5, judged=1e-7, **fields | more)

    failed = ratios.row("B", None, reason="ValueError: no")
    page = keras_zoo.page([{"results": [made("A", units=1), failed]}, {"results": [made("A")]}])
    assert "| A | 32 | 2.0 M | 45% | 2.0 | 3 (1 inexact) | 9 | 1e-07 | 2e-07 | 2: tied |" in page
    assert "| B | ValueError: no |" in page and page.count("| A |") == 1


def test_the_page_of_results_shows_the_ratio_before():
    run = {
        "benchmark": "made",
        "results": list(two_rows(None)),
        "machine": "m",
        "date": "2026-01-01",
    }
    run |= {
        "commit": "0123456789",
        "options": {"quick": False},
        "environment": {"versions": {"jax": "1"}},
    }
    slower = [row | {"ratio": 0.25} for row in run["results"]]
    page = benchmarks.markdown({"made": [run | {"results": slower}, run]})
    assert "| 1 | seconds | lower | 2 | theirs 3 | 0.5 [0.5, 1] | 0.25 | ratio ≤ 0.6, met |" in page
    assert (
        "| 2 | rates | higher | 2 | theirs 3 | 0.5 [0.5, 1] | 0.25 | ratio ≥ 0.6, not met |" in page
    )
    others = [row | {"alternatives": {"another": 3}} for row in slower]
    page = benchmarks.markdown({"made": [run | {"results": others}, run | {"commit": "0-dirty"}]})
    assert "0.5 [0.5, 1] | – | ratio ≤ 0.6, met |" in page and "were not committed" in page


def test_a_goal_may_bound_our_value_or_another():
    own, other = (ratios.row("x", 2.0, goal=3.0, judged=judged) for judged in (2.0, 2.5))
    run = {"benchmark": "made", "results": [own, other | {"case": "y"}], "machine": "m",
           "date": "2026-01-01", "commit": "0", "options": {"quick": False},
           "environment": {"versions": {"jax": "1"}}}  # fmt: skip
    page = benchmarks.markdown({"made": [run]})
    assert "| ours ≤ 3, met |" in page and "| ≤ 3, met |" in page


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_benchmark_ends_by_the_shared_writer(name, monkeypatch):
    module = importlib.import_module(f"experiments.benchmarks.{name}")
    assert f'main("{name}", __doc__, ' in Path(module.__file__).read_text()
    assert "json.dumps" not in Path(module.__file__).read_text()


def test_all_benchmarks_are_found():
    assert {"prune", "population", "structure", "coding", "landscape", "sweep"} <= {*PROGRAMS}
    assert {"job", "growth"} <= {*PROGRAMS}
