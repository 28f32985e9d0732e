"""Where memory runs out in the middle of a level, no member is listed twice anywhere."""

import collections
import functools
import itertools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import build, flags, runner, sweep
from experiments.groups import Sharing, jobs
from lth_jax import cli
from lth_jax.lottery import Programs, ladder, make_experiment, run_ladder, running
from lth_jax.lottery.progress import Display
from lth_jax.population import Plan
from lth_jax.report import read_run
from lth_jax.schema import LevelEntry, read_entry
from lth_jax.store import ALONE, Stop, Store, open_run
from lth_jax.store.files import read_json
from tests.experiments import swept, tiny
from tests.lottery.test_ladder import make_ladder, make_setup
from tests.thinning import sampled

OOM = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


class Scarce:
    """`train_node` that runs out of memory after the first segment of some nodes.

    Args:
      places: `(level, chunk, i)`: the i-th node of a level at a width, each once.
    """

    def __init__(self, places):
        self.left, self.seen = list(places), collections.Counter()
        self.train = ladder.train_node

    def __call__(self, segment, measure, members, data, assignment, *, on_progress, **options):
        width = members.alive.shape[0]
        place = (assignment.level, width, self.seen[assignment.level, width])
        self.seen[assignment.level, width] += 1

        def fail(progress):
            self.left.remove(place)
            raise OOM

        reported = fail if place in self.left else on_progress
        return self.train(
            segment, measure, members, data, assignment, on_progress=reported, **options
        )


@pytest.fixture
def scarce(monkeypatch):
    def install(*places):
        found = Scarce(places)
        monkeypatch.setattr(ladder, "train_node", found)
        return found

    return install


def labels_of(store, entries):
    """`(level, arm, replicate)` of every member that is listed, as often as it is."""
    return [
        (entry["level"], member.arm, member.replicate)
        for entry in entries
        for member in read_entry(store, LevelEntry(**entry)).facts.members
    ]


def check_equal(store, entries, other_store, expected):
    assert entries == expected
    labels = labels_of(store, entries)
    assert len(labels) == len(set(labels))
    for entry in entries:
        parts = [read_entry(shelf, LevelEntry(**entry)) for shelf in (store, other_store)]
        arrays = [part._replace(facts=()) for part in parts]
        jax.tree.map(np.testing.assert_array_equal, *arrays)


class Ladders:
    """A ladder of three levels with runs on disk: `chunk` members at a time, then as recorded."""

    def __init__(self, folder, replicates):
        setup = make_setup(replicates=replicates)
        self.experiment = make_experiment(*setup, make_ladder(setup, controls=("shuffle",)))
        self.folder, self.programs = folder, Programs(setup.task.trainer)
        self.expected = functools.cache(lambda *plans: self.run(f"as recorded {plans}", plans))

    def run(self, name, plans):
        """The manifest, the changes of plan, and the bar's count of member-steps over the total."""
        folder = Path(self.folder, name.replace(" ", "_"))
        store, sizes = Store(folder), [self.experiment.seeds.replicates * n for n in (1, 2, 2)]
        display = Display("", [self.experiment.ladder.stop * n for n in sizes], False)
        with open_run(folder, name="tiny", config={}, env={}) as run:
            hooks = running._hooks(run, display, Stop(), ALONE)
            run_ladder(
                [self.experiment], store=store, plans=plans, hooks=hooks, programs=self.programs
            )
            assert display._finished == display._total
            return store, run.nodes, [(r["level"], r["chunk"]) for r in run.replans]


@pytest.fixture(scope="module")
def ladders(tmp_path_factory):
    return Ladders(tmp_path_factory.mktemp("ladders"), 2)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return Ladders(tmp_path_factory.mktemp("wide"), 4)


def check_restarts(ladders, chunk, scarce, *places):
    """Memory runs out at these places: the run is that of the plans that are recorded then."""
    memory = scarce(*places)
    store, nodes, replans = ladders.run(f"{chunk} {places}", [(0, Plan(chunk))])
    assert memory.left == [] and replans == [(level, width // 2) for level, width, _ in places]
    plans = [(0, Plan(chunk)), *((level, Plan(width)) for level, width in replans)]
    expected_store, expected, _ = ladders.expected(*plans)
    check_equal(store, nodes, expected_store, expected)


NODES = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]  # of 2, 4 and 4 members, two at a time


@pytest.mark.parametrize(("level", "node"), sampled(NODES, 2))
def test_a_level_that_starts_again_lists_each_member_once(ladders, scarce, level, node):
    check_restarts(ladders, 2, scarce, (level, 2, node))


@pytest.mark.slow
def test_a_level_can_start_again_twice(ladders, scarce):
    check_restarts(ladders, 4, scarce, (1, 4, 0), (1, 2, 1))


def pairs():
    """All places where memory runs out twice, of 4, 8 and 8 members and 4 at a time."""
    count = {(0, 4): 1, (0, 2): 2, (1, 4): 2, (1, 2): 4, (2, 4): 2, (2, 2): 4}
    every = [(*place, i) for place, n in count.items() for i in range(n)]
    return [
        (first, second)
        for first, second in itertools.product(every, every)
        if first[1] == 4 and second[1] == 2 and first[0] <= second[0]
    ]


@pytest.mark.parametrize("places", sampled([(pair,) for pair in pairs()], 10))
def test_memory_may_run_out_twice_anywhere(wide, scarce, places):
    check_restarts(wide, 4, scarce, *places)


def config_in(module, workdir, **experiment):
    config = module.get_config()
    config.machine.update(workdir=str(workdir), progress=False)
    config.experiment.update_from_flattened_dict(experiment)
    return config


@pytest.mark.parametrize("level", sampled([1, 0, 2], 3))
def test_a_run_shows_every_seed_once(tmp_path, scarce, capsys, level):
    def rows(folder):
        capsys.readouterr()
        assert cli.main(["show", folder.name, "--root", str(folder.parent), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    scarce((level, 2, 1 if level else 0))
    changes = {"controls": ("shuffle",)}
    starved = runner.run(config_in(tiny, tmp_path / "starved", **changes), ["python"])
    recorded = config_in(tiny, tmp_path / "recorded", **changes)
    cell = build.experiment_of(recorded.experiment, build.dataset(recorded))
    what = {"name": recorded.experiment.name, "config": flags.recorded(recorded.experiment)}
    what["identity"] = running.run_identity(cell)
    with open_run(recorded.machine.workdir, env={}, **what) as run:
        run.record_plan(read_json(starved / "env.json")["plan"])
        for change in read_json(starved / "env.json")["replans"]:
            run.add_replan(change)
    expected = runner.run(recorded, ["python"])
    manifests = [read_json(folder / "manifest.json")["nodes"] for folder in (starved, expected)]
    check_equal(Store(starved.parent), manifests[0], Store(expected.parent), manifests[1])
    shown, right = rows(starved), rows(expected)
    assert shown["rows"] == right["rows"]


def run_name(config):
    [job] = jobs([({}, config)], Sharing())
    return job.run


def sweep_in(workdir):
    """Two learning rates by two depths; cells of one rate share what they have in common."""
    config = config_in(swept, workdir)
    config.machine.chunk = 4
    settings = itertools.product((1e-3, 1e-2), (1, 2))
    grid = [
        {"experiment.optimizer.learning_rate": rate, "experiment.prune.levels": depth}
        for rate, depth in settings
    ]
    cells = [(setting, sweep._cell(config, setting)) for setting in grid]
    folder = sweep.run_sweep(config, cells, ["python"]).parents[1]
    return folder, [Path(workdir, run_name(cell)) for _, cell in cells]


# Levels of 4, 8 and 8 members, four at a time. When the second node of level 1 is trained, all
# members of the first cell, which ends at that level, have been.
@pytest.mark.parametrize(("level", "node"), sampled([(1, 1), (0, 0), (1, 0), (2, 0), (2, 1)], 5))
def test_a_sweep_counts_every_member_of_its_cells_once(tmp_path, scarce, level, node):
    memory = scarce((level, 4, node))
    folder, starved = sweep_in(tmp_path / "starved")
    assert memory.left == []
    recorded = tmp_path / "recorded" / "sweeps" / folder.name
    recorded.mkdir(parents=True)
    for record in [*folder.glob("plan-*.json"), *folder.glob("replans-*.jsonl")]:
        shutil.copy(record, recorded)
    _, expected = sweep_in(tmp_path / "recorded")
    for run, other in zip(starved, expected, strict=True):
        store, other_store = Store(run.parent), Store(other.parent)
        manifests = [read_json(path / "manifest.json")["nodes"] for path in (run, other)]
        check_equal(store, manifests[0], other_store, manifests[1])
        assert [(r["level"], r["chunk"]) for r in read_json(run / "env.json")["replans"]] == (
            [(level, 2)] if level < len(read_run(store, run).levels) else []
        )
