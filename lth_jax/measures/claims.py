"""Claims: a question, the rule that answers it, and the evidence.

A `Protocol` is fixed before the data are drawn. `Evidence` holds one number per seed for each part
of the claim, and `Control`s are cases whose verdict is known. `measures.judge` makes verdicts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Row = dict[str, Any]
"""One line of a tidy table: `metric`, `value` (None where a network diverged), and what names it:
`arm`, `replicate`, and so on."""


class Protocol(NamedTuple):
    """A question with its rule.

    Attributes:
      claim: its short name, `"C7"`.
      title: a few words.
      says: the claim.
      question: what is tested.
      setup: data, network and training, in two lines.
      arms: what is compared.
      statistic: the primary number of each seed.
      rule: when the claim counts as supported.
      expects: what was expected beforehand, and why.
      limits: what the verdict leaves open.
      two_sided: whether the claim has no direction.
      in_family: whether its primary is one of those corrected together (Holm).
    """

    claim: str
    title: str
    says: str
    question: str
    setup: str
    arms: tuple[str, ...]
    statistic: str
    rule: str
    expects: str
    limits: str
    two_sided: bool = False
    in_family: bool = True


class Primary(NamedTuple):
    """One part of a claim, or a further number beside it.

    Attributes:
      name: what the number is.
      values: float64 `[seeds]`, NaN for a seed without one.
      delta: the smallest effect that matters.
      unit: of values and delta.
      two_sided: whether the sign is left open.
    """

    name: str
    values: NDArray[np.float64]
    delta: float
    unit: str
    two_sided: bool = False


class Control(NamedTuple):
    """A case whose answer is known, judged by the rule of the study at α = .001.

    Attributes:
      name: what it is, and why the answer is known.
      expected: the verdict that it must get.
      primaries: its numbers, on seeds of its own.
    """

    name: str
    expected: str
    primaries: Sequence[Primary]


class Evidence(NamedTuple):
    """What a study found.

    Attributes:
      primaries: the parts of the claim; all must hold. The first is the headline.
      rows: seed-level results, tidy.
      secondary: further numbers per seed, shown with intervals that nothing corrects.
      gate: TICKET − SHUFFLE per seed, where the study is about tickets: without an effect there,
        the setting has no ticket to ask about.
      member_steps: training steps of all networks together.
      flops: of the arms, by name, the search for the ticket counted.
      notes: sentences about what was found on the way (chosen learning rates and the like).
    """

    primaries: Sequence[Primary]
    rows: Sequence[Row]
    secondary: Sequence[Primary] = ()
    gate: NDArray[np.float64] | None = None
    member_steps: int = 0
    flops: Mapping[str, float] = MappingProxyType({})
    notes: tuple[str, ...] = ()


class Contrasts(NamedTuple):
    """Makes primaries of the contrasts between arms: the first minus the second, paired by seed.

    Attributes:
      values: by arm, `[seeds]`.
      unit: of the values.
      delta: the smallest effect that matters, unless a call gives another.
      label: what stands before the arms in a primary's name.
      two_sided: whether the sign is left open.

    >>> points = Contrasts({"ticket": [3.0, 4.0], "dense": [2.0, 2.0]}, "points", 1.0, "test ")
    >>> points("ticket", "dense")
    Primary(name='test ticket − dense', values=array([1., 2.]), delta=1.0, unit='points', ...)
    >>> points("ticket", "dense", margin=1.0).values.tolist()
    [2.0, 3.0]
    """

    values: Mapping[str, ArrayLike]
    unit: str
    delta: float = 1.0
    label: str = ""
    two_sided: bool = False

    def __call__(
        self,
        first: str,
        second: str,
        delta: float | None = None,
        *,
        name: str = "",
        margin: float | None = None,
    ) -> Primary:
        """The difference of two arms.

        Args:
          first: an arm.
          second: the arm that is subtracted.
          delta: the smallest effect that matters.
          name: of the primary; `"first − second"` by default.
          margin: a loss that is tolerated. It is added to the values, named, and δ is 0.
        """
        values = np.subtract(self.values[first], self.values[second])
        known = name or f"{self.label}{first} − {second}"
        if margin is not None:
            known, values, delta = f"{known} + {margin:g}", values + margin, 0.0
        least = self.delta if delta is None else delta
        return Primary(known, values, least, self.unit, self.two_sided)


def arm_rows(metric: str, values: Mapping[str, ArrayLike], **fields: Any) -> list[Row]:
    """Tidy rows of one metric: an arm and a replicate in each.

    Args:
      metric: its name.
      values: by arm, `[seeds]`.
      **fields: further fields, the same in all rows.

    >>> arm_rows("accuracy", {"dense": [0.5]}, level=0)
    [{'level': 0, 'arm': 'dense', 'replicate': 0, 'metric': 'accuracy', 'value': 0.5}]
    """
    return [
        {**fields, "arm": arm, "replicate": i, "metric": metric, "value": float(value)}
        for arm, each in values.items()
        for i, value in enumerate(np.asarray(each))
    ]


def draws(draw: Callable[[np.random.Generator], Any], seeds: Iterable[Any]) -> NDArray[Any]:
    """What a function draws from each of some seeds, stacked: of controls that are simulated.

    Args:
      draw: `rng -> number or numbers`.
      seeds: each makes a generator, `np.random.default_rng(seed)`.

    >>> draws(lambda rng: rng.integers(10, size=2), range(3)).shape
    (3, 2)
    """
    return np.array([draw(np.random.default_rng(seed)) for seed in seeds])
