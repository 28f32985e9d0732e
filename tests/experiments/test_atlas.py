"""The atlas from the command line: its controls, its page, and what it refuses."""

import json
import shutil

import pytest

from experiments import atlas
from experiments.studies import STUDIES
from lth_jax.report import answers
from tests.experiments.test_damage import HARMS


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert atlas.main(["--size=smoke", "--only=C7", f"--root={root}"]) == 0
    return root


def test_the_controls_hold_and_are_on_the_page(smoke):
    folder = smoke / "atlas" / "smoke"
    told = json.loads((folder / "atlas.json").read_text())
    assert [one["verdict"] for one in told["studies"]] == ["controls hold"]
    result = json.loads((folder / "C7" / "result.json").read_text())
    assert result["claim"] == "C7"
    assert all(control["expected"] == control["got"] for control in result["controls"])
    page = (folder / "index.html").read_text()
    assert "Implicit regularisation" in page and "controls hold" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is loaded from elsewhere
    assert "| C7 Implicit regularisation | controls hold |" in (folder / "table.md").read_text()


def test_the_protocol_is_stamped_and_what_is_finished_is_kept(smoke, capsys):
    folder = smoke / "atlas" / "smoke" / "C7"
    stamp = json.loads((folder / "protocol.json").read_text())
    found = json.loads((folder / "found.json").read_text())
    assert stamp["hash"] == found["hash"] and stamp["stamped"] <= found["finished"]
    assert stamp["protocol"]["rule"] == STUDIES["C7"].protocol.rule
    assert atlas.main(["--size=smoke", "--only=C7", f"--root={smoke}"]) == 0
    assert "C7 is already finished" in capsys.readouterr().out
    assert json.loads((folder / "found.json").read_text()) == found


def results(folder):
    found = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "finished")}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_study_is_named_and_run_again(smoke, capsys, harm):
    folder = smoke / "atlas" / "smoke" / "C7"
    right, records = results(folder), ("protocol.json", "found.json")
    for name, other in zip(records, reversed(records), strict=True):
        path = folder / name
        if harm == "swapped":
            path.write_bytes((folder / other).read_bytes())
        else:
            HARMS[harm](path, smoke, folder, name)
        capsys.readouterr()
        assert atlas.main(["--size=smoke", "--only=C7", f"--root={smoke}"]) == 0
        out = capsys.readouterr().out
        assert "already finished" not in out
        assert f"{path} is " in out or (harm, name) == ("deleted", "found.json")  # as if never run
        assert results(folder) == right


def test_a_study_of_another_size_is_not_believed(smoke, tmp_path, capsys):
    shutil.copytree(smoke / "atlas" / "smoke" / "C7", tmp_path / "atlas" / "laptop" / "C7")
    assert answers.read_answer(tmp_path / "atlas" / "laptop" / "C7", "laptop") is None
    assert "protocol.json is damaged: it is of the size 'smoke'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size=laptob"], "`--size` is 'laptob'; it must be one of"),
        (["--only=C77"], "did you mean 'C7'"),
        (["plan"], "'plan' is not an action"),
        (["draw", "C7"], "'draw C7' is not an action"),
        (["plan", "Q1"], "a study"),
    ],
)
def test_what_it_refuses(words, message, tmp_path, capsys):
    assert atlas.main([*words, f"--root={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("claim", STUDIES)
def test_every_protocol_is_whole(claim):
    protocol = STUDIES[claim].protocol
    assert protocol.claim == claim
    for name, words in protocol._asdict().items():
        assert words or name in ("two_sided", "in_family"), name
    for size in ("smoke", "laptop", "full"):
        assert "delta" in STUDIES[claim].get_config(size).study
    with pytest.raises(ValueError, match="'tiny'"):
        STUDIES[claim].get_config("tiny")


@pytest.mark.slow
def test_all_controls_of_the_smoke_atlas_hold(tmp_path):
    assert atlas.main(["--size=smoke", f"--root={tmp_path}"]) == 0
    told = json.loads((tmp_path / "atlas" / "smoke" / "atlas.json").read_text())["studies"]
    assert [one["claim"] for one in told] == list(STUDIES)
    assert {one["verdict"] for one in told} == {"controls hold"}
