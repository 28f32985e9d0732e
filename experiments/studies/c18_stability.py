"""C18: whether rewinding to an early step makes tickets stable and more accurate."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import RATE, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Start
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, arm_rows, draws, relative
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import Tuned

LATE = "rewound to step 50"
PROTOCOL = Protocol(
    claim="C18",
    title="Rewinding and stability",
    says="A ticket that is rewound to an early step is more stable to the order of its data than "
    "one that is rewound to the start, and more accurate.",
    question="Do tickets rewound to step 50 have lower error barriers between two children, and "
    "higher test accuracy, than tickets rewound to the start, by δ each?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, 700 "
    "steps; magnitude pruning in four rounds of 40 % within layers, rewound to the start or to "
    "step 50.",
    arms=("dense", "ticket", LATE, "shuffle"),
    statistic="the error barrier on the line between two networks trained from one ticket in two "
    "data orders, TICKET minus LATE; and test accuracy, LATE minus TICKET; both in % of the dense "
    "error, paired by seed",
    rule="Both are at least δ, 5 % of the dense error as in ORIGINAL. Each arm has the learning "
    "rate that the other half of the seeds chose by accuracy.",
    expects="Supported, as Frankle et al. (2020) found for large networks, in which tickets "
    "rewound to the start are neither stable nor as accurate as dense networks.",
    limits="One small network. A barrier needs two children in other orders than found the mask. "
    "Children train for as many steps from either point.",
    paragraph="The Original Lottery, paragraph 2",
    chosen_by="The network of ORIGINAL with 700 steps; the density .13, at which its tickets are "
    "worse than dense networks; step 50, a fourteenth of the training.",
)
TEST = "test_accuracy_final"


def get_config(size: str = "laptop") -> ConfigDict:
    """700 steps, four rounds to density .13, rewinding to steps 0 and 50."""
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.data.options.update(train=98_000, test=10_000)
    experiment.train.update(eval_every=700)
    experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=5.0,  # % of the dense error
        rates=(3e-3, 1e-2, 3e-2, 6e-2),
        late=50,  # step of late rewinding
        points=7,  # points on the line between two children
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.update(late=1000, points=30)
        config.study.setup += (
            " Not supported would mean that LeNet is stable from its start, as Frankle et al. "
            "(2020) found for it."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders of both rewinding steps at all rates, and the barriers between children."""
    study, name = config.study, PROTOCOL.claim
    later = vary(config, rewind__step=study.late, controls=(), control_levels=())
    tuned, late = runner.tuned(name, config), runner.tuned(name, later)
    accuracy = {arm: 100 * tuned.of(arm, TEST) for arm in ("dense", "ticket", "shuffle")}
    accuracy[LATE] = 100 * late.of("ticket", TEST)
    barriers = {
        "dense": _barriers(runner, config, tuned, "dense"),
        "ticket": _barriers(runner, config, tuned, "ticket"),
        LATE: _barriers(runner, later, late, "ticket"),
    }
    ahead = relative(accuracy, delta=study.delta)
    shares = {arm: 100 * each / (100 - accuracy["dense"].mean()) for arm, each in barriers.items()}

    def lower(one: str, other: str) -> Primary:
        unit = "% of the dense error"
        return Primary(f"barrier, {other} − {one}", shares[other] - shares[one], study.delta, unit)

    children = 2 * sum(map(len, barriers.values()))
    return Evidence(
        primaries=[lower(LATE, "ticket"), ahead(LATE, "ticket")],
        rows=[
            *arm_rows("test accuracy (%)", accuracy),
            *arm_rows("error barrier (points)", barriers),
        ],
        secondary=[ahead(LATE, "dense"), ahead("ticket", "dense"), lower("ticket", "dense")],
        gate=accuracy["ticket"] - accuracy["shuffle"],
        member_steps=tuned.member_steps
        + late.member_steps
        + children * config.experiment.train.steps,
        flops=tuned.flops(),
        notes=(tuned.described(), f"Rewound late. {late.described()}"),
    )


def _barriers(
    runner: StudyRunner, config: ConfigDict, tuned: Tuned, arm: str
) -> NDArray[np.float64]:
    """The error barrier of each seed at its chosen rate, in points."""
    name, chosen = PROTOCOL.claim, tuned.chosen(arm)
    at: dict[float, list[Start]] = {
        rate: runner.starts(name, vary(config, **{RATE: float(rate)}), (arm,))[arm]
        for rate in np.unique(chosen)
    }
    starts = [
        at[rate][i]._replace(hyper={"learning_rate": float(rate)}) for i, rate in enumerate(chosen)
    ]
    first = vary(config, **{RATE: float(tuned.rates[0])})  # whose plan is that of all rates
    return runner.barriers(name, first, starts, config.study.points)


def controls(config: ConfigDict) -> list[Control]:
    """Barriers of 12 and 2 % with accuracies 10 % apart, and equal barriers and accuracies."""
    delta = config.study.delta

    def drawn(rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.normal((12, 2, 2, 10, 0), 2.0)

    seeds = [[981, i] for i in range(config.study.control_seeds)]
    high, low, again, gained, nothing = draws(drawn, seeds).T

    def parts(ticket: Any, late: Any, gain: Any) -> list[Primary]:
        return [
            Primary("barrier, ticket − late", ticket - late, delta, "% of the dense error"),
            Primary("test accuracy, late − ticket", gain, delta, "% of the dense error"),
        ]

    return [
        Control("lower barriers and higher accuracies", SUPPORTED, parts(high, low, gained)),
        Control("equal barriers and accuracies", NOT_SUPPORTED, parts(low, again, nothing)),
    ]


draw = functools.partial(
    tidy.by_arm, metrics=("test accuracy (%)", "error barrier (points)"), label=""
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
