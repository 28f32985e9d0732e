"""The recipes of the literature: their configs, their expectations, and their command."""

from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import build, checks, literature
from experiments.configs.literature import recipes
from experiments.flags import UserError
from lth_jax import trees
from lth_jax.measures.expected import Expected, Networks
from lth_jax.pruning import masks, scopes
from lth_jax.report.recipes import NEAR, SHORT, SIZES, Recipe
from lth_jax.types import DENSE
from tests.experiments import tiny
from tests.thinning import sampled

SHAPES = {
    **{"mnist": (28, 28, 1), "mnist_5k": (28, 28, 1), "cifar10": (32, 32, 3)},
    **{"digits": (8, 8, 1), "mnist1d": (40,), "imagenet": (224, 224, 3)},
}
EVERY = [(name, size) for name in recipes() for size in SIZES]


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_well_formed(name):
    module = recipes()[name]
    recipe = module.RECIPE
    recipe.check()
    assert recipe.name == name and recipe.title and recipe.setting and recipe.short
    assert all(one.source for one in recipe.expected)
    runs = {run.partition("@")[0] for run in module.configs("full")}
    named = {n.run for one in recipe.expected for n in (one.networks, one.minus) if n}
    assert named - {""} <= runs and set(recipe.labels) <= runs
    assert any(not one.needs_full for one in recipe.expected)  # short sizes judge something


@pytest.mark.parametrize("name", recipes())
def test_the_page_describes_the_recipe(name):
    recipe = recipes()[name].RECIPE
    page = (Path(literature.__file__).parents[1] / "docs/literature.md").read_text()
    assert (
        f"## {recipe.title}: short size\n\n{recipe.setting}\n\n*Short size.* {recipe.short}" in page
    )


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_the_configs_of_a_recipe_are_sound(name, size):
    module = recipes()[name]
    names, data = [], set()
    for run, config in module.configs(size).items():
        checks.check(config.experiment)
        names.append(config.experiment.name)
        data.add(config.experiment.data.name)
        assert module.get_config(f"{size}/{run}").to_dict() == config.to_dict()
    assert len(set(names)) == len(names)
    needs_files = {"mnist", "cifar10", "imagenet"} & {
        c.experiment.data.name for c in module.configs(size).values()
    }
    assert bool(needs_files) == (size != SHORT)


@pytest.mark.parametrize("name", recipes())
def test_a_config_that_does_not_exist_is_refused(name):
    for argument, message in (("tiny", "'tiny'"), ("short/twin", "'twin'")):
        with pytest.raises(ValueError, match=message):
            recipes()[name].get_config(argument)


def kept(config):
    """The density of every level of a config, by arm."""
    experiment = config.experiment
    x = np.zeros((1, *SHAPES[experiment.data.name]), np.float32)
    params, _ = jax.eval_shape(build.model(experiment).init, jax.random.key(0), x)
    prunable = masks.prunable_leaves(params)
    sizes = {n: leaf.size for n, leaf in trees.to_named(params).items() if leaf.ndim > 1}

    def density(one):
        if not isinstance(one, dict):
            return float(one)
        named = trees.to_named(one)
        return sum(named[n] * size for n, size in sizes.items()) / sum(sizes.values())

    scope = scopes.SCOPES[experiment.prune.scope]()
    levels = build.densities(experiment, params)
    layouts = build.model(experiment).layouts(x)
    for one in levels:
        scope.counts(params, one, prunable=prunable, layouts=layouts)
    pruned = {i + 1: density(one) for i, one in enumerate(levels)}
    controlled = experiment.control_levels or tuple(pruned)
    return {DENSE: [1.0], "ticket": list(pruned.values())} | {
        arm: [pruned[i] for i in controlled] for arm in experiment.controls
    }


@pytest.mark.parametrize(("name", "size"), sampled(EVERY, 2))
def test_expectations_concern_networks_that_are_trained(name, size):
    module = recipes()[name]
    trained, first = {}, ""
    for run, config in module.configs(size).items():
        first = first or run.partition("@")[0]
        for arm, densities in kept(config).items():
            trained.setdefault((run.partition("@")[0], arm), []).extend(densities)
    for one in module.RECIPE.expected:
        for networks in filter(None, (one.networks, one.minus)):
            if size == SHORT and one.needs_full:
                continue
            found = trained[networks.run or first, networks.arm]
            if networks.density is None:
                assert found
                continue
            assert any(1 / NEAR < d / networks.density < NEAR for d in found), one


def test_the_levels_of_lenet_have_the_densities_of_the_paper():
    densities = kept(recipes()["lenet"].get_config("full"))["ticket"]
    percents = {n: round(100 * densities[n - 1], 1) for n in (3, 7, 9, 15, 18)}
    assert percents == {3: 51.3, 7: 21.1, 9: 13.5, 15: 3.6, 18: 1.9}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lenett"], "did you mean 'lenet'"),
        (["lenet:large"], "the size of a recipe is 'large'"),
        (["lenet", "conv"], "'conv' is not an argument"),
        (["document"], "`document` needs one folder"),
        (["lenet", "--roots=x"], "an argument is '--roots'"),
        (["lenet:full", "--dry_run"], "manual_dir"),
    ],
)
def test_bad_input_is_one_sentence(argv, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert literature.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_recipes_are_listed(capsys, tmp_path):
    assert literature.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and m.RECIPE.title in printed for name, m in recipes().items())
    assert "short data" in printed and "mnist_5k" in printed
    assert literature.main(["document", str(tmp_path), f"--root={tmp_path}"]) == 2
    assert "holds no finished recipe" in capsys.readouterr().err


def small_recipe():
    """Two densities of one curve, pruned at initialisation in rounds, and a ladder."""
    ladder = tiny.get_config()
    ladder.experiment.update(name="made-imp", controls=("reinit",))
    shots = {}
    for density in (0.5, 0.25):
        shots[f"synflow@{density}"] = config = tiny.get_config()
        config.experiment.update(name=f"made-synflow-{density}", controls=())
        config.experiment.prune.update(criterion="synflow", at_start=True, rounds=4)
        config.experiment.prune.update(schedule="one_shot", final=density, levels=1)
    imp, synflow = Networks("ticket", 0.25, "imp"), Networks("ticket", 0.25, "synflow")
    expected = (
        Expected(imp, "made", synflow, low=-1.0),
        Expected(Networks("reinit", 0.25, "imp"), "made", imp, low=0.9),
        Expected(imp, "made", value=0.5),
    )
    recipe = Recipe("made", "A made recipe", "None.", "None.", expected)
    return SimpleNamespace(RECIPE=recipe, configs=lambda size: {"imp": ladder} | shots)


@pytest.mark.slow
def test_a_recipe_runs_is_read_again_and_documented(tmp_path, capsys, monkeypatch):
    module = small_recipe()
    machine = tiny.get_config().machine
    machine.update(workdir=str(tmp_path / "runs"), progress=False)
    table = literature.train(module, SHORT, machine)
    assert "2 findings: holds 1, does not hold 1." in table
    found = literature.trained(module, SHORT, machine)
    assert set(found.runs) == {"imp", "synflow@0.5", "synflow@0.25"}
    page = tmp_path / "runs" / "literature" / "made-short" / "index.html"
    before = page.read_bytes()
    capsys.readouterr()
    assert literature.train(module, SHORT, machine) == table
    assert "3 cells, 3 finished; 0 groups" in capsys.readouterr().out
    assert page.read_bytes() == before
    monkeypatch.setattr(literature, "recipes", lambda: {"made": module})
    assert literature.main(["document", str(tmp_path / "docs"), f"--root={machine.workdir}"]) == 0
    assert "## A made recipe: short size" in (tmp_path / "docs" / "literature.md").read_text()
    changed = module.configs(SHORT)
    changed["imp"].experiment.replicates = 3
    with pytest.raises(UserError, match="recipe 'made:short' is not what ran"):
        literature.trained(
            SimpleNamespace(RECIPE=module.RECIPE, configs=lambda _: changed), SHORT, machine
        )


def test_two_ways_to_choose_the_scored_step_exclude_each_other():
    experiment = tiny.get_config().experiment
    experiment.prune.update(at_start=True, score_step=10)
    with pytest.raises(UserError, match="cannot both be set"):
        checks.check(experiment)


@pytest.mark.slow
def test_pruning_at_the_start_scores_the_initial_weights(tmp_path):
    config = tiny.get_config()
    config.machine.workdir = str(tmp_path)
    config.experiment.prune.at_start = True
    loaded = build.dataset(config)
    for step in (0, 5):
        config.experiment.rewind.step = step
        task = build.task(config.experiment, loaded)
        assert build.ladder(config.experiment, task).score_step == step
