"""A table of the user, with gaps, through a config."""

import pytest

from experiments import build
from experiments.configs import base
from lth_jax.cli.programs import UserError


def config(tmp_path, **options):
    rows = [f"{i},{'' if i == 7 else i % 3},{'pq'[i % 2]}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    found = base.ladder()
    found.machine.workdir = str(tmp_path)
    found.experiment.data.update(name="csv", validation=10)
    found.experiment.train.batch_size = 8
    found.experiment.data.options = {"file": str(tmp_path / "t.csv"), "target": "y", **options}
    return found


def test_a_gap_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"^row 8, column 'b': '' is missing \(1 of 60 .*'drop'"):
        build.dataset(config(tmp_path))


@pytest.mark.parametrize(
    ("options", "inputs", "rows"),
    [
        ({"missing": "drop"}, 2, 59),
        ({"missing": "mean", "numbers": ("b",)}, 2, 60),
        ({"missing": "category", "categories": ("b",)}, 1 + 4, 60),
        ({"columns": ("a",)}, 1, 60),
    ],
)
def test_the_choice_is_the_users(tmp_path, options, inputs, rows):
    loaded = build.dataset(config(tmp_path, **options))
    assert loaded.train.x.shape[1] == inputs
    assert len(loaded.train.y) + len(loaded.validation.y) + len(loaded.test.y) == rows
