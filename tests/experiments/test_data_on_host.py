"""The placement of training data, set or automatic; the numbers do not depend on it."""

import pytest

from experiments import build, machine, runner, trainers
from lth_jax.cli.programs import UserError
from lth_jax.lottery import running
from lth_jax.population import OnHost
from tests.experiments import tiny


def config_in(workdir, where="", **train):
    config = tiny.get_config()
    config.machine.update(workdir=str(workdir), data_placement=where, progress=False)
    config.experiment.train.update(train)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


def task_of(config):
    loaded = build.dataset(config)
    return trainers.task(config.experiment, loaded)


@pytest.mark.parametrize(
    ("where", "free", "found"),
    [
        ("", 10**9, "device"),
        ("", 10**5, "host"),
        ("", None, "device"),
        ("device", 10, "device"),
        ("host", 10**9, "host"),
    ],
)
def test_data_are_where_they_fit_or_where_the_config_places_them(
    folder, monkeypatch, where, free, found
):
    monkeypatch.setattr(build, "free_bytes", lambda: free)
    task = task_of(config_in(folder, where))
    assert running.data_placement(task) == found
    assert isinstance(task.data.train, OnHost) == (found == "host")


def test_what_needs_all_data_at_once_keeps_them_on_the_device(folder, monkeypatch):
    monkeypatch.setattr(build, "free_bytes", lambda: 10)
    assert running.data_placement(task_of(config_in(folder, share=50))) == "device"
    with pytest.raises(UserError, match=r"`machine\.data_placement` is 'host', but `train\.share`"):
        build.dataset(config_in(folder, "host", share=50))
    with pytest.raises(
        UserError, match=r"`machine\.data_placement` is 'disk'; there is no such name"
    ):
        machine.prepare(config_in(folder, "disk").machine)


@pytest.mark.slow
def test_a_run_reads_its_data_from_the_host_to_the_same_bits(tmp_path):
    tables, plans = [], []
    for where in ("device", "host"):
        folder = runner.run(config_in(tmp_path / where, where), ["python"])
        tables.append((folder / "report" / "data" / "seeds.csv").read_bytes())
        plans.append((folder / "env.json").read_text())
    assert tables[0] == tables[1]
    assert '"data": "device"' in plans[0] and '"data": "host"' in plans[1]
    made = [sorted(p.name for p in tmp_path.glob(f"{w}/nodes/*/*")) for w in ("device", "host")]
    assert made[0] == made[1]
