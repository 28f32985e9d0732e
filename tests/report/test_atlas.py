"""The page of an atlas and the pictures of tidy rows, from numbers made up here."""

import json

import numpy as np
import pytest

from lth_jax.report import effects, tidy
from lth_jax.report.atlas import document, write_atlas
from lth_jax.report.chapters import Chapter, markdown
from lth_jax.report.effects import Effect
from lth_jax.report.plotting import image

ROWS = [
    {"arm": arm, "replicate": r, "metric": metric, "value": base + 0.1 * r, "size": size}
    for base, arm in enumerate(("dense", "ticket"))
    for metric in ("train error", "test error")
    for size in (10, 20)
    for r in range(3)
]


def part(name="effect", estimate=2.0, delta=1.0):
    return {
        "name": name,
        "unit": "points",
        "delta": delta,
        "two_sided": False,
        "estimate": estimate,
        "low": 1.0,
        "high": None,
        "cell": "",
        "corrected": [1.0, None],
        "method": "sign-flip",
        "coverage": 0.947,
        "seeds": 48,
        "missing": 0,
        "values": [2.0],
        "needed": 20,
    }


def chapter(rounds=("discovery",), **changes):
    words = ("says", "question", "setup", "statistic", "rule", "expects", "limits")
    found = {
        "kind": "comparison",
        "primaries": [part()],
        "secondary": [part("beside <it>")],
        "gate": {"estimate": 1.0, "low": 0.5, "high": 1.5, "met": True},
        "controls": [
            {"name": "known", "expected": "supported", "got": "supported", "primaries": [part()]}
        ],
        "notes": ["a note"],
        "flops": {"dense": 1e9, "ticket": 2e9},
        "member_steps": 1000,
        "seconds": 61.0,
        "finished": "2026-11-22T10:00:00+00:00",
        "hash": "a" * 64,
        "environment": {"versions": {"jax": "0.10", "flax": "0.12", "optax": "0.2"}},
        **changes,
    }
    protocol = {
        "claim": "X1",
        "title": "A <claim>",
        "arms": ("a",),
        **dict.fromkeys(words, "w & w"),
    }
    figure = tidy.by_arm(ROWS, ["test error"], "Error")
    return Chapter(protocol, dict.fromkeys(rounds, found), figure, "repeat", ["one", "two <v>"])


def test_the_page_holds_everything_and_escapes_it(tmp_path):
    page = write_atlas(tmp_path, "laptop", [chapter()], "From an article.").read_text()
    assert "<p>From an article.</p>" in page and "<dt>octave</dt>" in page
    for text in (
        "A &lt;claim&gt;",
        "beside &lt;it&gt;",
        "w &amp; w",
        "supported",
        "repeat",
        "two &lt;v&gt;",
        "sign-flip, 94.7 %",
        "<svg",
        "Supported, one round: effect: +2 [+1, –] points (discovery: supported).",
    ):
        assert text in page
    assert "$" not in page
    reported = json.loads((tmp_path / "atlas.json").read_text())["studies"][0]
    for name in ("claim", "verdict", "estimate", "low", "high", "delta", "seeds", "controls"):
        assert name in reported
    assert (tmp_path / "X1" / "figure.png").stat().st_size > 1000


def test_an_atlas_begins_with_the_state_and_a_picture_of_all_effects(tmp_path):
    ends = {"low": -3.0, "high": -1.0, "corrected": [-3.5, -0.5]}
    below = part(delta=0.0, estimate=-2.0) | ends
    both = ("discovery", "replication")
    chapters = [chapter(both), chapter(primaries=[below], seconds=200)]
    page = write_atlas(tmp_path, "laptop", chapters).read_text()
    assert "such as ticket − dense + 5, contains its margin" in page
    assert "2 claims were tested. The evidence supports: w &amp; w (X1)" in page
    assert "An effect of δ is excluded in: A" in page
    assert "A replication on other seeds and data has not run for X1." in page
    assert page.index('aria-label="effects"') < page.index("<table")
    assert "in units of their δ" in page and "contain their margin" in page
    assert "<td>2 min</td>" in page and "<td>3 min</td>" in page and "studies: 1 supp" in page
    assert "Supported: effect: +2 [+1, –] points (discovery: supported; replication: sup" in page
    assert (tmp_path / "effects.png").stat().st_size > 1000


def test_the_atlas_is_a_page_of_the_documentation(tmp_path):
    page = document(tmp_path, "laptop", [chapter()], "From an article.").read_text()
    assert "From an article." in page and "**δ**: The smallest effect" in page
    assert page.startswith("# The atlas\n\n- 1 claim was tested.")
    assert "*Protocol.* One. Two <v>." in page and "intervals over the seeds.\n" in page
    assert "contains its margin: the claim allows a loss of 5" in page
    assert "## X1 A <claim>" in page and "| X1 A <claim> | supported, one round |" in page
    assert "| +2 [+1, –] points | – | [+1, –] | 1 | 48 |" in page
    assert "| primary: effect | +2 [+1, –] points | [+1, –] | sign-flip, 94.7 % | 1 | 48 |" in page
    assert "beside <it>" not in page  # secondary effects are on the HTML page
    for name in ("effects", "X1"):
        assert f"](atlas/{name}.svg)" in page and (tmp_path / "atlas" / f"{name}.svg").exists()


def test_results_are_compared_with_the_expectation(tmp_path):
    one = chapter()
    one = one._replace(protocol=one.protocol | {"outcome": "as expected"})
    assert (
        "*Expected.* W & w.\n\n*Outcome.* As expected."
        in document(tmp_path, "laptop", [one]).read_text()
    )


def test_curves_are_no_deciding_effects(tmp_path):
    curve = chapter(kind="curve", gate=None)
    document(tmp_path, "laptop", [curve])
    assert curve.verdict == "measured" and not (tmp_path / "atlas" / "effects.svg").exists()


def test_a_wrong_control_of_the_pipeline_voids_every_study():
    void = chapter(("discovery", "replication"))._replace(failed={"replication": ["a null"]})
    assert void.verdict == "void" and "a null" in void.judgement["why"]


def test_controls_that_hold_are_no_confirmations(tmp_path):
    found = [chapter(primaries=[], secondary=[], gate=None)]
    page = write_atlas(tmp_path, "smoke", found).read_text()
    assert "not evidence for or against a claim" in page and "1 study: all controls hold" in page
    assert 'class="badge open">controls hold' in page and "<th>Deciding effect</th>" not in page


def test_effects_are_in_units_of_their_delta():
    drawn = effects.draw(
        [
            Effect("X1", "one", "supported", [part(delta=0.5), part(delta=0.5, estimate=3.0)]),
            Effect("X2", "two", "reversed", [part(delta=0.0)]),
        ]
    )
    upper, lower = drawn.axes
    dots = [line for one in drawn.axes for line in one.lines if hasattr(line, "values")]
    assert [float(np.ravel(dot.get_xdata())[0]) for dot in dots] == [4.0, 6.0, 2.0]
    assert "units of δ" in upper.get_xlabel() and "margin" in lower.get_xlabel()
    assert [text.get_text() for text in upper.texts] == ["", ""]  # arrows: `high` is unbounded


def test_a_study_without_numbers_has_a_line_too():
    *_, line, _, made = markdown("smoke", [chapter(primaries=[], secondary=[])]).splitlines()
    assert made == (
        "`python -m experiments.atlas --size=smoke`, 2026-11-22, flax 0.12, jax 0.10, optax 0.2, "
        "61 s."
    )
    assert line == "| X1 A <claim> | controls hold | – | – | – | – | – | – |"


def test_values_are_found_by_all_fields():
    found = tidy.values_of(ROWS, arm="ticket", metric="test error", size=20)
    np.testing.assert_allclose(found, [1.0, 1.1, 1.2])
    assert np.isnan(tidy.values_of([{"arm": "a", "value": None}], arm="a")).all()
    assert tidy.known(ROWS, "size") == [10, 20]


def test_densities_run_from_dense_to_sparse():
    rows = [row | {"density": row["size"]} for row in ROWS]
    labels = {"label": "Error", "x_label": "x"}
    curve = tidy.against(rows, "density", "test error", **labels).axes[0]
    curves = tidy.against_each({"a": rows}, "density", **labels).axes[0]
    whole = tidy.grid_map(rows, "density", "replicate", "test error", y_label="y", **labels).axes[0]
    assert curve.xaxis_inverted() and curves.xaxis_inverted()
    assert [tick.get_text() for tick in whole.get_xticklabels()] == ["20", "10"]


def test_long_titles_of_panels_have_several_lines():
    long = "negative log-likelihood (nats)"
    rows = [row | {"metric": long} for row in ROWS]
    one, two = (tidy.by_arm(rows, [long] * n, "").axes[0].get_title() for n in (1, 2))
    assert one == long and two == long.replace("negative ", "negative\n")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: tidy.by_arm(ROWS, ["train error", "test error"], "Error (%)"),
        lambda: tidy.against(ROWS, "size", "test error", label="Error", x_label="Size", zero=True),
        lambda: tidy.grid_map(
            ROWS, "size", "replicate", "test error", label="Error", x_label="x", y_label="y"
        ),
    ],
)
def test_pictures_are_drawn_the_same_twice(draw):
    assert image(draw(), "svg") == image(draw(), "svg")
