"""Follows CONTRIBUTING.md: adds each of its files, finds it by name, tries it, and removes it."""

import contextlib
import importlib
import inspect
import math
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import Primitive
from jax.interpreters import mlir
from ml_collections import ConfigDict

from experiments import build, checks, runner
from experiments.fields import FIELDS, check_value
from experiments.studies import STUDIES
from lth_jax import store as stores
from lth_jax import structure as st
from lth_jax.cli.programs import UserError
from lth_jax.coding import codecs
from lth_jax.data.sources import GENERATED
from lth_jax.lottery import CONTROLS
from lth_jax.measures import judge
from lth_jax.models import NETWORKS
from lth_jax.population import LOSSES, LR_SCHEDULES, METRICS, OPTIMIZERS
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.methods import METHODS, Inputs
from lth_jax.pruning.schedules import SCHEDULES
from lth_jax.registry import import_modules
from lth_jax.report import read_run
from lth_jax.structure.rules import RULES
from tests.experiments import tiny
from tests.pruning import test_criteria_weights

PAGE = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+)\.py\n(.*?)```", PAGE, re.S))
PARTS = {
    "lth_jax/pruning/criteria/relative_growth": {"prune.criterion": (CRITERIA, "relative_growth")},
    "lth_jax/pruning/methods/late": {"prune.method": (METHODS, "late")},
    "lth_jax/lottery/control_negated": {"controls": (CONTROLS, "negated")},
    "lth_jax/population/top_five": {"train.metrics": (METRICS, "top_five")},
    "lth_jax/models/gated": {"model.name": (NETWORKS, "gated_mlp")},
    "lth_jax/data/rings": {"data.name": (GENERATED, "rings")},
    "lth_jax/population/focal": {"train.loss": (LOSSES, "focal")},
    "lth_jax/population/adabelief": {
        "optimizer.name": (OPTIMIZERS, "adabelief"),
        "optimizer.schedule": (LR_SCHEDULES, "sine"),
    },
    "lth_jax/pruning/halving": {"prune.schedule": (SCHEDULES, "halving")},
    "lth_jax/coding/whole_rows": {"": (codecs.CODECS, "whole_rows")},
    "lth_jax/structure/rules_softcap": {"": (RULES, "softcap")},
    "experiments/studies/coin": {"": (STUDIES, "COIN")},
}
"""By file: its parts, by the config field that names them."""
SEVERAL = ("controls", "train.metrics")
OTHERS = re.findall(r"```py\n(.*?)```", PAGE, re.S)
"""The lines of `__init__.py`, and the test of the criterion."""


@contextlib.contextmanager
def added(folder, *files):
    """The files, as if they stood in their packages; afterwards nothing of them is left."""
    with contextlib.ExitStack() as undo:
        for file in files:
            package = importlib.import_module(file.rpartition("/")[0].replace("/", "."))
            stem, own = file.rpartition("/")[2], folder / file
            own.mkdir(parents=True)
            (own / f"{stem}.py").write_text(FILES[file])
            before = package.__path__
            package.__path__ = [*before, str(own)]
            undo.callback(setattr, package, "__path__", before)
            for registry, name in PARTS[file].values():
                assert name not in registry
                undo.callback(registry.pop, name)
            importlib.invalidate_caches()
            import_modules(package.__name__, package.__path__)  # as the package does
            undo.callback(sys.modules.pop, f"{package.__name__}.{stem}")
            undo.callback(delattr, package, stem)
        yield


def test_every_file_of_the_page_is_tried():
    assert set(FILES) == set(PARTS)


@pytest.mark.parametrize("file", PARTS)
def test_a_new_file_is_found_by_its_name(file, tmp_path):
    fields = [(FIELDS[field], name) for field, (_, name) in PARTS[file].items() if field]
    for field, name in fields:
        with pytest.raises(UserError, match=f"`{field.name}` is '{name}'"):
            check_value(field, (name,) if field.name in SEVERAL else name)
    with added(tmp_path, file):
        assert all(name in registry for registry, name in PARTS[file].values())
        for field, name in fields:
            check_value(field, (name,) if field.name in SEVERAL else name)
    assert not any(name in registry for registry, name in PARTS[file].values())


OF_CONFIGS = [file for file, parts in PARTS.items() if "" not in parts and "methods" not in file]


def config_of_parts(workdir):
    """A small config that names one new part of each kind."""
    config = tiny.get_config()
    experiment = config.experiment
    experiment.data.update(name="rings", validation=20, train_examples=0)
    experiment.data.options = ConfigDict({"train": 80, "test": 20})
    experiment.model.name = "gated_mlp"
    experiment.model.options = ConfigDict({"width": 4, "classes": 6})
    experiment.train.update(
        steps=4, eval_every=2, batch_size=8, loss="focal", metrics=("top_five",)
    )
    experiment.optimizer.update(name="adabelief", schedule="sine", warmup=0)
    experiment.prune.update(
        criterion="relative_growth", schedule="halving", final=0.3, levels=1, scope="globally"
    )
    experiment.controls = ("negated",)
    config.machine.update(chunk=2, driver="scan", progress=False, workdir=str(workdir))
    return config


def test_the_parts_of_a_config_are_built_and_traced(tmp_path):
    config = config_of_parts(tmp_path / "runs")
    with added(tmp_path, *OF_CONFIGS):
        checks.check(config.experiment)
        experiment = build.experiment_of(config.experiment, build.dataset(config))
    ladder, trainer = experiment.ladder, experiment.task.trainer
    assert list(ladder.controls) == ["negated"] and list(trainer.metrics) == ["loss", "top_five"]
    assert {"ticket", "negated"} <= experiment.identity.arms.keys()
    assert float(trainer.schedule(2)) == 1
    logits, labels = jnp.log(jnp.array([[0.5, 0.2, 0.1, 0.1, 0.07, 0.03]] * 2)), jnp.array([0, 5])
    np.testing.assert_allclose(trainer.metrics["top_five"](logits, labels), [1, 0])
    np.testing.assert_allclose(trainer.loss(logits, labels)[0], 0.25 * np.log(2), rtol=1e-5)


@pytest.mark.slow
def test_the_parts_of_a_config_train_together(tmp_path):
    config = config_of_parts(tmp_path / "runs")
    with added(tmp_path, *OF_CONFIGS):
        record = read_run(stores.Store(config.machine.workdir), runner.run(config, ["python"]))
    assert record.arms == ["dense", "ticket", "negated"]
    assert record.levels[1].density == pytest.approx(0.5, abs=0.01)
    assert "test_top_five_final" in record.levels[1].results


def test_a_criterion_passes_its_test(tmp_path):
    lines, test = OTHERS
    names = dict(vars(test_criteria_weights))
    with added(tmp_path, "lth_jax/pruning/criteria/relative_growth"):
        assert inspect.ismodule(criteria.relative_growth)  # as the page says
        exec(lines, names)
        exec(test, names)
        assert names["relative_growth"] is CRITERIA["relative_growth"]
        names["test_growth_is_relative_to_the_initial_weight"]()


def test_a_method_moves_its_mask(tmp_path):
    params = {"kernel": jnp.array([[3.0, 1.0], [0.5, 2.0]])}
    prunable, scope = masks.prunable_leaves(params), scopes.globally()
    inputs = Inputs(masks.ones_like(params), jnp.int32(2), jax.random.key(0))
    with added(tmp_path, "lth_jax/pruning/methods/late"):
        method = METHODS["late"](prunable=prunable, scope=scope, steps=8)
    tx = method.transform(optax.sgd(0.1), inputs)

    @jax.jit
    def update(params, state, step):
        updates, state = tx.update(method.effective(params, state), state, params, step=step)
        return optax.apply_updates(params, updates), state

    state, kept = tx.init(params), []
    for step in range(8):
        params, state = update(params, state, step)
        kept.append(int(method.final(params, state)[1]["kernel"].sum()))
    assert kept[:6] == [4] * 6 and kept[-1] == 2
    assert method.final(params, state)[1]["kernel"].tolist() == [[True, False], [False, True]]


def test_a_codec_writes_and_reads(tmp_path):
    mask = np.zeros((40, 7), bool)
    mask[[1, 2, 3, 7, 21]] = True
    with added(tmp_path, "lth_jax/coding/whole_rows"):
        name, code = codecs.encode(mask)
        assert name == "whole_rows" and len(code) == 5
        assert (codecs.decode(name, code, mask.shape, int(mask.sum())) == mask).all()
        assert codecs.CODECS[name].plan(np.eye(3, dtype=bool), 3).bits == math.inf


def test_a_rule_frees_its_axes(tmp_path):
    softcap = Primitive("softcap")
    softcap.def_abstract_eval(lambda x: x)
    softcap.def_impl(jnp.tanh)
    mlir.register_lowering(softcap, mlir.lower_fun(jnp.tanh, multiple_results=False))
    params = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2))}

    def groups():
        apply = lambda p, x: softcap.bind(x @ p["w"]) @ p["v"]  # noqa: E731
        return [g.units for g in st.find_groups(apply, params, jnp.ones((1, 3))).groups]

    assert groups() == []
    with added(tmp_path, "lth_jax/structure/rules_softcap"):
        assert groups() == [4]


def test_a_study_is_judged(tmp_path):
    with added(tmp_path, "experiments/studies/coin"):
        one = STUDIES["COIN"]
        config = one.get_config("smoke")
        judged = judge.judged(one.controls(config), np.random.default_rng(0))
        assert all(control["got"] == control["expected"] for control in judged)
        evidence = one.gather(None, config)
        assert len(evidence.rows) == 40 and one.draw(evidence.rows).axes
