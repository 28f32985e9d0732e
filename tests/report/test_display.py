import html

import numpy as np
import pytest

from lth_jax import schema
from lth_jax.report import display, page, tables
from tests.report import synthetic


def printed(run):
    return display.level_table(run).fitted(80)


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("test_accuracy_final", "Test accuracy at the end (%)"),
        ("test_accuracy_early_stop", "Test accuracy at early stop (%)"),
        ("test_loss_final", "Test loss at the end"),
        ("early_stop_step", "Early-stop step"),
        ("validation_loss", "Validation loss"),
    ],
)
def test_metrics_have_names_for_people(metric, title):
    assert display.quantity(metric).title == title


def test_the_console_table_has_a_line_per_level_and_fits_a_terminal(run):
    text = printed(run)
    cells = display.level_cells(run)
    assert cells[0] == ["level", "kept %", *run.arms, "early stop, step"]
    assert [line[0] for line in cells[1:]] == ["0", "1", "2", "3"]
    for line in cells[1:]:
        assert all(word in text for cell in line for word in cell.split())
    assert "(4/5)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_console_table_says_that_nothing_is_finished(read):
    assert "No level is finished yet" in printed(read([], finish=False))


def test_loss_is_shown_where_there_is_no_accuracy(read):
    nodes = synthetic.ladder(levels=1)
    for node in nodes:
        for name in [name for name in node.results if "accuracy" in name]:
            del node.results[name]
    assert display.headline_metric(read(nodes)) == "test_loss_final"


def differences(*means, metric="test_accuracy_final"):
    """Ticket minus dense and minus random at level 1, 2, …"""
    return [
        {"control": control, "level": level, "density": 0.5**level, "metric": metric}
        | {"mean": mean + extra, "low": mean - 0.01, "high": mean + 0.01, "replicates": 5}
        for level, mean in enumerate(means, start=1)
        for control, extra in (("dense", 0.0), ("random", 0.1))
    ]


def test_the_verdict_names_the_sparsest_level_that_keeps_up():
    said = display.verdict(differences(0.02, 0.01, -0.03))
    assert said.startswith("The sparsest level whose tickets are on average no worse")
    assert "keeps 25 % of the weights" in said
    assert "dense +1.0 [+0.0, +2.0]" in said
    assert "5 paired replicates" in said and "dense error" not in said
    assert "One point is 2.5 % of the dense error." in display.verdict(differences(0.02), 0.6)
    assert "dense error" not in display.verdict(differences(0.2, metric="test_loss_final"), 0.6)


def test_the_verdict_says_when_no_level_keeps_up():
    said = display.verdict(differences(-0.02, -0.05))
    assert said.startswith("No level's tickets")
    assert "the sparsest level keeps 25 %" in said and "−5.0" in said


def test_a_lower_loss_keeps_up():
    said = display.verdict(differences(-0.2, 0.1, metric="test_loss_final"))
    assert "no worse" in said and "keeps 50 %" in said and "points" not in said


def test_the_verdict_does_not_speak_of_a_dense_parent_that_was_not_trained():
    rows = [row for row in differences(0.02, -0.03) if row["control"] != "dense"]
    assert display.verdict(rows).startswith("The sparsest level keeps 25 %")


def test_the_verdict_without_controls_says_so():
    assert display.verdict([]) == "No level with tickets and controls is finished yet."


def test_one_replicate_has_a_mean_and_no_interval(read):
    run = read(synthetic.ladder(levels=1, replicates=1))
    ticket = display.level_cells(run)[2][3]
    assert float(ticket) == pytest.approx(
        100 * run.levels[1].results["test_accuracy_final"][0], abs=0.1
    )
    differences = display.difference_cells(tables.difference_rows(run, "test_accuracy_final"))
    assert all(float(cell.replace("−", "-")) for cell in differences[1][2:])


def test_controls_that_equal_the_ticket_are_named(run, read):
    assert display.alike(run) == []
    nodes = synthetic.ladder(levels=2, replicates=3)
    rows = np.arange(12) % 3  # the results of the tickets for the other arms too
    for values in (*nodes[1].results.values(), *nodes[1].curves.values()):
        values[..., 3:] = values[..., rows[3:]]
    nodes[1].results["test_loss_final"][4] += 1  # one network of reinit differs
    run = read(nodes)
    said = "At level 1, shuffle and random have exactly the results of the ticket; a difference of"
    assert display.alike(run) == [f"{said} 0 there is not evidence."]
    assert said in str(display.level_table(run)) and said in page.page(run, [], []).decode()


def test_a_level_without_scores_is_named(read):
    nodes = synthetic.ladder(levels=1, replicates=2)
    why = "`snip` gives scores that are all equal at 'w'; they do not determine a mask."
    lost = {"diverged_at": 0, "unscored": schema.Unscored("snip", ["w"], why)}
    facts = nodes[1].facts
    facts = facts._replace(members=tuple(member._replace(**lost) for member in facts.members))
    run = read([nodes[0], nodes[1]._replace(facts=facts)])
    assert display.left_out(run) == [f"Level 1: no network trained. {why}"]
    assert "no network trained. `snip` gives" in html.unescape(page.page(run, [], []).decode())


@pytest.mark.parametrize(
    ("diverged", "sentence"),
    [
        ([], ""),
        ([(1, "random", 0)], "Replicate 0 of random at level 1 diverged and is left out."),
        (
            [(0, "dense", 1), (1, "random", 0), (1, "random", 2)],
            "Replicate 1 of dense at level 0 and replicates 0 and 2 of random at level 1 diverged "
            "and are left out.",
        ),
        (
            [(1, arm, r) for arm in ("ticket", "random") for r in range(4)],
            "8 networks diverged and are left out: 4 of ticket and 4 of random.",
        ),
    ],
)
def test_a_table_names_the_networks_that_diverged(read, diverged, sentence):
    run = read(synthetic.ladder(levels=1, diverged=diverged))
    table = display.level_table(run)
    assert table.note == sentence
    assert " ".join(str(table).splitlines()[4:]) == sentence
    assert html.escape(sentence) in page.page(run, [], []).decode()
