"""The lottery ticket hypothesis, with instability and late rewinding."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, dense_beside, vary
from lth_jax.lottery.stability import error_barriers
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.generalization import refitted_errors
from lth_jax.measures.sign_lottery import sign_lottery
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="ORIGINAL",
    title="The hypothesis itself",
    says="A dense network that is drawn at random holds a subnetwork that, trained alone from the "
    "same values, is as good as the whole; neither its mask nor its values do it alone.",
    question="At density .22, do tickets match their dense parents within a point, and beat other "
    "values under their mask, shuffled masks and random masks by a point each?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-64-64-10 with Adam, "
    "400 steps; magnitude pruning in three rounds, rewound to the start.",
    arms=("dense", "ticket", "reinit", "shuffle", "random", "small", "dense+"),
    statistic="differences of test accuracy in points, paired by seed; that to DENSE has the "
    "margin added",
    rule="All four must hold (intersection–union). Learning rates are tuned on pilot seeds for "
    "each arm of the ladder. SMALL is dense with as many weights as a ticket, DENSE+ dense for as "
    "many steps as the whole ladder; both are shown beside.",
    expects="Supported: on MNIST and its kin the initial values matter (Frankle & Carbin, 2019); "
    "with tuned rates on larger tasks they often do not (Liu et al., 2019).",
    limits="One small network, and 400 steps of training. By the recipe of MNIST-1D's authors, "
    "the tickets of five seeds were 3.9 points better than their parents at a density of .21 "
    "(`mnist1d_authors.py`). Large networks need rewinding to an early step (Frankle et al., "
    "2020).",
)
RATE, TEST = "optimizer__learning_rate", "test_accuracy_final"
LADDER, BESIDE = PROTOCOL.arms[:5], PROTOCOL.arms[5:]
LATE = "rewound late"


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 400 steps, density .22."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=400, eval_every=50)
    experiment.prune.levels = 3
    experiment.controls = ("reinit", "shuffle", "random")
    experiment.control_levels = (3,)
    config.study = common.numbers(
        delta=1.0,  # points of test accuracy over each control
        margin=1.0,  # points that may be lost against the dense network
        small=(22, 22, 10),  # dense networks with as many weights as a ticket
        rates=(3e-3, 1e-2, 3e-2),
        pilot_seeds=4,
        late=50,  # step of late rewinding
        children=8,  # seeds for the stability analysis
        points=5,  # points on the line between two children
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.update(small=(71, 22, 10), children=32, points=30, late=1000)
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Tuned ladders with all controls, late rewinding, and the lines between children."""
    study, name = config.study, PROTOCOL.claim
    tuned = runner.tuned(name, config, LADDER)
    beside = runner.ladders(name, dense_beside(config, study.small, tuned.rates["dense"]))
    at_rate = vary(config, **{RATE: tuned.rates["ticket"]})
    rewound = vary(at_rate, rewind__step=study.late, controls=())
    late = runner.ladders(name, {"late": rewound})
    accuracy = {arm: 100 * tuned.of(arm, TEST) for arm in LADDER}
    accuracy |= {arm: 100 * beside.of(arm, "dense", TEST) for arm in BESIDE}
    accuracy[LATE] = 100 * late.of("late", "ticket", TEST)
    barriers = {arm: _barriers(runner, at_rate, arm) for arm in ("dense", "ticket")}
    stopped = {a: 100 * tuned.of(a, "test_accuracy_early_stop") for a in ("ticket", "dense")}
    steps = {arm: tuned.of(arm, "early_stop_step") for arm in ("ticket", "dense")}
    children = 2 * 2 * study.children * config.experiment.train.steps
    ahead = Contrasts(accuracy, "points", study.delta)
    return Evidence(
        primaries=[
            ahead("ticket", "dense", margin=study.margin),
            *(ahead("ticket", arm) for arm in LADDER[2:]),
        ],
        rows=arm_rows("test accuracy", accuracy),
        secondary=[
            ahead("ticket", "dense", study.margin),
            *(ahead("ticket", arm) for arm in BESIDE),
            Contrasts(stopped, "points")(
                "ticket", "dense", name="ticket − dense, both stopped early"
            ),
            Contrasts(steps, "steps", 50.0, "early stop, ")("dense", "ticket"),
            ahead(LATE, "ticket", 1.0, name=f"rewound to step {study.late} − to 0"),
            *(
                Primary(f"barrier between children of {a}", b, 2.0, "points")
                for a, b in barriers.items()
            ),
        ],
        gate=accuracy["ticket"] - accuracy["shuffle"],
        member_steps=sum(run.member_steps for run in (tuned, beside, late)) + children,
        flops=tuned.flops() | {arm: beside.flops(arm)["dense"] for arm in BESIDE},
        notes=(tuned.described(),),
    )


def _barriers(runner: StudyRunner, config: ConfigDict, arm: str) -> NDArray[np.float64]:
    """The error barrier between two children of each start, in points (Frankle et al., 2020)."""
    study, task = config.study, runner.task(config)
    starts = runner.starts(PROTOCOL.claim, config, (arm,))[arm][: study.children]
    root = runner.seeds(config).root
    families = [start.reordered(root, order) for start in starts for order in (0, 1)]
    trained = runner.retrain(PROTOCOL.claim, config, families)
    return 100 * error_barriers(task, trained.params, trained.state, study.points)


def controls(config: ConfigDict) -> list[Control]:
    """A lottery of signs, which one unit in four wins, and least squares, which all win.

    Of 16 units that learn relu(x) the ticket keeps one with the right signs; a redrawn or another
    unit has them with probability 1/4. Least squares has a unique solution on each support: the
    ticket is better than a shuffled mask, and the initial weights do not matter.
    """
    seeds = config.study.control_seeds
    signs = sign_lottery(np.random.default_rng(1500), seeds)
    dense, ticket, shuffle = draws(refitted_errors, range(1501, 1501 + seeds)).T

    def parts(dense: Any, ticket: Any, reinit: Any, shuffle: Any) -> list[Primary]:
        return [
            Primary("loss, reinit − ticket", reinit - ticket, 0.1, ""),
            Primary("loss, shuffle − ticket", shuffle - ticket, 0.1, ""),
            Primary("loss, dense − ticket + 0.05", dense - ticket + 0.05, 0.0, ""),
        ]

    return [
        Control("one unit of 16 with the right signs", SUPPORTED, parts(*signs)),
        Control("least squares", NOT_SUPPORTED, parts(dense, ticket, ticket, shuffle)),
    ]


draw = functools.partial(tidy.by_arm, metrics=("test accuracy",), label="Test accuracy (%)")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
