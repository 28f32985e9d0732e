"""The atlas from the command line: its controls, its page, and what it refuses."""

import functools
import itertools
import json
import shutil
import tomllib

import numpy as np
import pytest

from experiments import atlas
from experiments.configs import base
from experiments.studies import STUDIES, chapters, pipeline, registration, rounds
from experiments.studies.common import at_round, experiments_of
from experiments.studies.study_runner import StudyRunner
from lth_jax.cli.programs import UserError
from lth_jax.measures.claims import KINDS, Evidence, Primary
from lth_jax.measures.judge import DISCOVERY, ROUNDS
from lth_jax.report import answers
from lth_jax.report.chapters import STATES
from lth_jax.store import CorruptError
from tests.experiments.test_damage import HARMS


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert atlas.main(["--size=smoke", "--only=C7", f"--root={root}"]) == 0
    return root


def test_the_controls_hold_and_are_on_the_page(smoke):
    folder = smoke / "atlas" / "smoke"
    atlas_json = json.loads((folder / "atlas.json").read_text())
    assert [one["verdict"] for one in atlas_json["studies"]] == ["controls hold"]
    result = json.loads((folder / "C7" / "result.json").read_text())
    assert result["claim"] == "C7"
    assert all(control["expected"] == control["got"] for control in result["controls"])
    page = (folder / "index.html").read_text()
    assert "Implicit regularisation" in page and "controls hold" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is loaded from elsewhere
    assert "| C7 Implicit regularisation | controls hold |" in (folder / "table.md").read_text()


def test_the_protocol_is_stamped_and_what_is_finished_is_kept(smoke, capsys):
    folder = smoke / "atlas" / "smoke" / "C7" / "discovery"
    stamp = json.loads((folder / "protocol.json").read_text())
    found = json.loads((folder / "found.json").read_text())
    assert stamp["hash"] == found["hash"] and stamp["stamped"] <= found["finished"]
    assert stamp["protocol"]["rule"] == STUDIES["C7"].protocol.rule
    assert atlas.main(["--size=smoke", "--only=C7", f"--root={smoke}"]) == 0
    assert "C7 is already finished" in capsys.readouterr().out
    assert json.loads((folder / "found.json").read_text()) == found


def results(folder):
    found = json.loads((folder / "result.json").read_text())
    for one in (found, *found["rounds"].values()):
        one.pop("seconds"), one.pop("finished", None)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_study_is_named_and_run_again(smoke, capsys, harm):
    folder = smoke / "atlas" / "smoke" / "C7" / "discovery"
    right, records = results(folder.parent), ("protocol.json", "found.json")
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
        assert results(folder.parent) == right


def test_a_study_of_another_size_is_not_believed(smoke, tmp_path, capsys):
    shutil.copytree(smoke / "atlas" / "smoke" / "C7", tmp_path / "atlas" / "laptop" / "C7")
    assert answers.read_rounds(tmp_path / "atlas" / "laptop" / "C7", "laptop") == {}
    assert "protocol.json is damaged: it is of the size 'smoke'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--size=laptob"],
            "`--size` is 'laptob'; did you mean 'laptop'?",
        ),
        (["--only=C77"], "did you mean 'C7'"),
        (["plan"], "'plan' is not an action"),
        (["draw", "C7"], "'draw C7' is not an action"),
        (["plan", "Q1"], "a study"),
        (["--seed=-1"], "`--seed` is -1; it must be an integer in 0"),
        (["--round=third"], "`--round` is 'third'; there is no such name. It must be one of"),
        (["register", "C7", "--data_seen=perhaps"], "`--data_seen` is 'perhaps'"),
        (["register", "C7"], "C7 is registered as version"),
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
        assert words or name == "two_sided", name
    assert protocol.kind in KINDS
    for size in ("smoke", "laptop", "full"):
        assert {"delta", "margin"} & set(STUDIES[claim].get_config(size).study)
    with pytest.raises(ValueError, match="'tiny'"):
        STUDIES[claim].get_config("tiny")


@pytest.mark.parametrize("claim", STUDIES)
def test_every_protocol_is_registered(claim):
    lines = registration.check(STUDIES[claim])
    assert [line["version"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(line["reason"] for line in lines)


def test_every_study_compares_its_result_with_the_expectation():
    outcomes = tomllib.loads(chapters.OUTCOMES.read_text())
    assert set(outcomes) == set(STUDIES)
    for texts in outcomes.values():
        assert texts and set(texts) <= set(STATES) and all(texts.values())


def test_versions_are_appended_and_an_edited_line_is_named(tmp_path):
    one = STUDIES["C7"]
    other = one._replace(protocol=one.protocol._replace(rule="Another rule."))
    with pytest.raises(UserError, match="C7 differs from its last registered version"):
        registration.check(one, tmp_path)
    registration.register(one, "first", data_seen=False, folder=tmp_path)
    assert registration.check(one, tmp_path)[-1]["version"] == 1
    with pytest.raises(UserError, match="differs from its last"):
        registration.check(other, tmp_path)
    with pytest.raises(UserError, match="`--reason` is empty"):
        registration.register(other, "", data_seen=True, folder=tmp_path)
    registration.register(other, "a better rule", data_seen=True, folder=tmp_path)
    [first, second] = registration.check(other, tmp_path)
    assert (first["data_seen"], second["data_seen"]) == (False, True)
    path = tmp_path / "C7.jsonl"
    path.write_text(path.read_text().replace('"first"', '"1st"'))
    with pytest.raises(CorruptError, match=r"C7\.jsonl was edited before version 2"):
        registration.versions("C7", tmp_path)
    whole = path.read_text().replace('"1st"', '"first"')
    path.write_text(whole.replace("Another rule.", "A third rule."))
    with pytest.raises(CorruptError, match=r"C7\.jsonl was edited in version 2"):
        registration.versions("C7", tmp_path)
    path.write_text(whole[:-30])
    with pytest.raises(CorruptError, match=r"C7\.jsonl has no version in line 2"):
        registration.versions("C7", tmp_path)


def test_rounds_have_seeds_and_data_of_their_own():
    configs = {
        (claim, name): at_round(STUDIES[claim].get_config(), claim, name)
        for claim in STUDIES
        for name in ROUNDS
    }
    seeds = [config.study.seed for config in configs.values()]
    assert len(set(seeds)) == len(seeds)
    for config in configs.values():
        for experiment in experiments_of(config):
            assert experiment.seed == experiment.data.seed == config.study.seed
            assert experiment.data.options.get("data_seed", config.study.seed) == config.study.seed


def test_a_protocol_that_saw_its_data_and_another_seed_get_others():
    config = STUDIES["C4"].get_config()
    seeds = []
    for series, seed in itertools.product(range(3), range(3)):
        config.study.series = series
        seeds += [at_round(config, "C4", name, seed).study.seed for name in ROUNDS]
    assert len(set(seeds)) == len(seeds)


def test_studies_of_another_seed_are_kept_beside_those_of_the_atlas(smoke, tmp_path):
    folder = tmp_path / "atlas"
    shutil.copytree(smoke / "atlas", folder)
    before = (folder / "smoke" / "C7" / "discovery" / "found.json").read_bytes()
    assert atlas.main(["--size=smoke", "--only=C7", "--seed=3", f"--root={tmp_path}"]) == 0
    assert (folder / "smoke" / "C7" / "discovery" / "found.json").read_bytes() == before
    [study] = json.loads((folder / "smoke-seed-3" / "atlas.json").read_text())["studies"]
    assert study["verdict"] == "controls hold"
    page = (folder / "smoke-seed-3" / "index.html").read_text()
    assert "python -m experiments.atlas --size=smoke --seed=3 --only=C7" in page
    stamps = [json.loads(path.read_text())["hash"] for path in folder.rglob("protocol.json")]
    assert len(set(stamps)) == len(stamps) == 2


@pytest.mark.slow
def test_all_controls_of_the_smoke_atlas_hold(tmp_path):
    assert atlas.main(["--size=smoke", f"--root={tmp_path}"]) == 0
    studies = json.loads((tmp_path / "atlas" / "smoke" / "atlas.json").read_text())["studies"]
    assert [one["claim"] for one in studies] == list(STUDIES)
    judged = {one["verdict"] for one in studies if not STUDIES[one["claim"]].train}
    assert judged == {"controls hold"}


@pytest.mark.slow
def test_workers_run_the_same_studies(smoke, tmp_path, capfd):
    command = ["--size=smoke", "--only=C7,C13", f"--root={tmp_path}"]
    assert atlas.main([*command, "--workers=2"]) == 0
    out = capfd.readouterr().out
    assert "C7 is finished" in out and "C13 is finished" in out
    folder = tmp_path / "atlas" / "smoke"
    assert results(folder / "C7") == results(smoke / "atlas" / "smoke" / "C7")
    assert atlas.main(command) == 0
    assert "C13 is already finished" in capfd.readouterr().out


@pytest.mark.slow
def test_a_worker_that_fails_is_named(tmp_path, capfd):
    (tmp_path / "atlas" / "smoke").mkdir(parents=True)
    (tmp_path / "atlas" / "smoke" / "C7").write_text("a file where a folder must be")
    command = ["--size=smoke", "--only=C7,C13", "--workers=2", f"--root={tmp_path}"]
    assert atlas.main(command) == 2
    out, err = capfd.readouterr()
    assert "C13 is finished" in out and "C7 failed; the message stands above." in err


def test_networks_of_timed_studies_are_trained_beside_others(tmp_path, monkeypatch, capsys):
    calls = []

    def gather(runner, config):
        calls.append("gather")
        return Evidence(primaries=[Primary("a", np.arange(4.0), 0.0, "%")], rows=[], member_steps=1)

    one = STUDIES["C15"]._replace(
        train=lambda runner, config: calls.append("train"),
        gather=gather,
        controls=lambda config: [],
    )
    monkeypatch.setattr(rounds, "STUDIES", {"C15": one})
    machine = base.ladder().machine
    machine.workdir = str(tmp_path)
    this = rounds.Round("laptop", DISCOVERY)
    run = functools.partial(rounds.finish, "C15", this, StudyRunner(machine))
    folder = tmp_path / "atlas" / "laptop" / "C15" / DISCOVERY
    run(only_train=True)
    assert calls == ["train"] and answers.read_answer(folder, "laptop") is None
    run(spent=100.0)
    assert (
        calls == ["train", "gather"]
        and 100 <= answers.read_answer(folder, "laptop")["seconds"] < 160
    )
    run(only_train=True)
    assert calls == ["train", "gather"] and "C15 is already finished" in capsys.readouterr().out


def test_workers_start_with_the_longest_studies(tmp_path, monkeypatch):
    def started(claims):
        found = []
        monkeypatch.setattr(rounds, "_in_workers", lambda n, claims, **_: found.extend(claims))
        rounds.run(rounds.Round("laptop", DISCOVERY), claims, StudyRunner(machine), workers=2)
        return found

    machine = base.ladder().machine
    machine.workdir = str(tmp_path)
    monkeypatch.setattr(rounds, "draw", lambda *args: None)
    claims = ["C15", "N4", "C4"]
    assert started(claims) == ["N4", "C4", "C15", pipeline.NAME]  # by `Study.minutes`
    times = {"C15": {"discovery": {"seconds": 5000.0}}}
    monkeypatch.setattr(answers, "read_rounds", lambda folder, size: times.get(folder.name, {}))
    assert started(claims) == ["C15", "N4", "C4", pipeline.NAME]


def test_only_timed_studies_train_apart():
    assert [claim for claim, one in STUDIES.items() if one.train] == ["C4", "C15"]
