import numpy as np
import pytest

from experiments.benchmarks import forms
from lth_jax.analysis.sparse_forms import compacted, passes


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(forms, "WIDTHS", (12, 8, 4, 3))
    rng = np.random.default_rng(0)
    return lambda case: forms.drawn(rng, forms.CASES[case][0](rng))


@pytest.mark.parametrize("case", forms.CASES)
def test_every_form_of_a_ticket_has_its_outputs(case, narrow):
    dense, ticket = narrow(case)
    x = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)
    found = passes(x, dense, ticket, forms.CASES[case][1])
    assert set(found) == {"dense", *forms.CASES[case][1]}
    for name in set(found) - {"dense"}:
        np.testing.assert_allclose(found[name](), found["masked"](), rtol=1e-4, atol=1e-4)
    assert not np.allclose(found["dense"](), found["masked"]())


def test_compaction_removes_the_units(narrow):
    _, ticket = narrow("a quarter of the units")
    kept = [max(int((kernel != 0).any(0).sum()), 1) for kernel, _ in ticket[:-1]]
    small = compacted(ticket, np.ones((1, 12), np.float32))
    assert [bias.shape[0] for _, bias in small[:-1]] <= kept and sum(kept) < 12


def test_a_ticket_that_is_not_two_of_four_has_no_such_form(narrow):
    dense, ticket = narrow("2:4")
    kernel, bias = ticket[0]
    kernel[:4] = 1
    with pytest.raises(ValueError, match="it keeps 4, where 2:4 allows 2"):
        passes(np.ones((1, 12), np.float32), dense, [(kernel, bias), *ticket[1:]], ["2:4"])
