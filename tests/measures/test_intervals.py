import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lth_jax.measures import intervals
from lth_jax.measures.intervals import (
    bootstrap_t,
    clopper_pearson,
    paired_difference,
    paired_shares,
    sign_flip_interval,
    sign_flip_test,
    student_t,
    welch_difference,
)

# Student's own sleep data (Biometrika, 1908): extra hours under two drugs, ten patients.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_paired_difference_of_students_sleep_data():
    got = paired_difference(DRUG_2, DRUG_1)
    assert got.estimate == pytest.approx(1.58)
    assert (got.low, got.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_student_t_agrees_with_scipy(confidence):
    values = np.random.default_rng(1).normal(3, 2, size=7)
    want = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    got = student_t(values, confidence=confidence)
    np.testing.assert_allclose((got.low, got.high), want, rtol=1e-12)


def test_welch_agrees_with_scipy():
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 3, size=5), rng.normal(0, 1, size=9)
    want = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    got = welch_difference(np.append(a, np.nan), b, confidence=0.9)
    np.testing.assert_allclose((got.low, got.high), want, rtol=1e-12)
    assert (got.replicates, got.missing) == (14, 1)


def test_welch_of_too_few_or_equal_values():
    assert np.isnan(welch_difference([1.0], [2.0, 3.0])[1:3]).all()
    assert np.isnan(welch_difference([], [2.0, 3.0]).estimate)
    assert welch_difference([1.0, 1.0], [3.0, 3.0])[:3] == (-2.0, -2.0, -2.0)


def test_missing_replicates_are_left_out_and_counted():
    got = student_t([1.0, np.nan, 3.0, np.inf])
    assert (got.estimate, got.replicates, got.missing) == (2.0, 2, 2)
    assert got[:3] == student_t([1.0, 3.0])[:3]


def test_a_pair_with_one_missing_end_is_left_out_whole():
    got = paired_difference([1.0, np.nan, 5.0, 7.0, np.inf], [0.0, 9.0, np.nan, 2.0, np.inf])
    assert (got.estimate, got.replicates, got.missing) == (3.0, 2, 3)


@pytest.mark.parametrize(
    "interval",
    [
        student_t,
        sign_flip_interval,
        lambda values: bootstrap_t(values, rng=np.random.default_rng(0)),
    ],
)
def test_too_few_values_have_no_interval(interval):
    one, none = interval([2.5, np.nan]), interval([np.nan])
    assert one.estimate == 2.5 and np.isnan([one.low, one.high]).all() and one.replicates == 1
    assert np.isnan(none[:3]).all() and (none.replicates, none.missing) == (0, 1)


def coverage(interval, draw, truth, repeats):
    hits = 0
    for _ in range(repeats):
        got = interval(draw())
        hits += got.low <= truth <= got.high
    return hits / repeats


def test_coverage_of_student_t_on_normal_values():
    rng = np.random.default_rng(2)
    got = coverage(student_t, lambda: rng.normal(1, 3, size=5), 1.0, repeats=4000)
    assert got == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 4000))


@pytest.mark.parametrize("size", [6, 8])
def test_coverage_of_the_sign_flip_interval_is_what_the_subsets_allow(size):
    rng = np.random.default_rng(3)
    exact = 1 - 2 * np.floor(0.025 * 2**size) / 2**size
    got = coverage(sign_flip_interval, lambda: 2 + rng.laplace(size=size), 2.0, repeats=3000)
    assert got == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 3000))


def test_coverage_of_bootstrap_t_on_skewed_values():
    rng = np.random.default_rng(4)
    repeats = 600
    got = coverage(
        lambda v: bootstrap_t(v, rng=rng, resamples=599),
        lambda: rng.exponential(size=16),
        1.0,
        repeats,
    )
    assert got == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / repeats))
    # Student's interval undercovers on such values: the studentised one earns its place.
    assert coverage(student_t, lambda: rng.exponential(size=16), 1.0, 2000) < 0.93


def test_bootstrap_t_approaches_student_t_on_many_normal_values():
    rng = np.random.default_rng(5)
    values = rng.normal(size=400)
    want, got = student_t(values), bootstrap_t(values, rng=rng)
    assert got.low == pytest.approx(want.low, abs=0.1 * (want.high - want.low))
    assert got.high == pytest.approx(want.high, abs=0.1 * (want.high - want.low))


def test_bootstrap_t_of_equal_values_is_a_point_and_of_two_is_infinite():
    rng = np.random.default_rng(6)
    point = bootstrap_t([0.1, 0.1, 0.1], rng=rng)
    assert (point.low, point.high) == (point.estimate, point.estimate)
    two = bootstrap_t([0.0, 1.0], rng=rng)
    assert (two.low, two.high) == (-np.inf, np.inf)


def test_sign_flip_test_agrees_with_scipy():
    values = np.random.default_rng(7).normal(0.5, 1, size=9)
    want = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_test(values) == pytest.approx(want)


def test_sign_flip_interval_is_the_set_of_centers_not_rejected():
    values = np.random.default_rng(8).normal(0.5, 1, size=8)
    got = sign_flip_interval(values)
    inside, outside = 1e-9, -1e-9
    for end, direction in [(got.low, 1), (got.high, -1)]:
        assert sign_flip_test(values, center=end + direction * inside) > 0.05
        assert sign_flip_test(values, center=end + direction * outside) <= 0.05


def test_sign_flips_are_drawn_beyond_the_exact_limit():
    rng = np.random.default_rng(9)
    values = rng.normal(0.4, 1, size=intervals.EXACT_LIMIT + 10)
    t = stats.ttest_1samp(values, 0).pvalue
    assert sign_flip_test(values, rng=rng) == pytest.approx(t, abs=0.01)
    want, got = student_t(values), sign_flip_interval(values, rng=rng)
    np.testing.assert_allclose(got[:3], want[:3], atol=0.05)
    with pytest.raises(ValueError, match="`rng` is needed for 30 values"):
        sign_flip_test(values)


def test_sign_flip_test_without_evidence_is_one():
    assert sign_flip_test([0.0, 0.0]) == 1.0
    assert sign_flip_test([np.nan]) == 1.0


@given(st.integers(1, 200), st.data())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_clopper_pearson_agrees_with_scipy(trials, data):
    successes = data.draw(st.integers(0, trials))
    want = stats.binomtest(successes, trials).proportion_ci(0.9, method="exact")
    got = clopper_pearson(successes, trials, confidence=0.9)
    np.testing.assert_allclose((got.low, got.high), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: student_t([[1.0]]), r"`values` must be one-dimensional, got shape \(1, 1\)"),
        (lambda: student_t([1.0], confidence=95), r"`confidence` must be in \(0, 1\), got 95"),
        (lambda: student_t([1.0], confidence=float("nan")), "`confidence` must be"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "same replicates, got 1 and 2 values"),
        (
            lambda: bootstrap_t([1.0], rng=np.random.default_rng(0), resamples=20),
            "`resamples` must be at least 40",
        ),
        (lambda: clopper_pearson(0, 0), "`trials` must be at least 1"),
        (lambda: clopper_pearson(4, 3), r"`successes` must be in \[0, 3\], got 4"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("won", "lost"), [(0.02, 0.0), (0.1, 0.02), (0.3, 0.3), (0.98, 0.0)])
@pytest.mark.parametrize("confidence", [0.95, 0.9975])
def test_shares_of_pairs_are_covered_also_where_few_differ(won, lost, confidence):
    rng, draws = np.random.default_rng(3), 400
    values = 100.0 * rng.choice([1.0, -1.0, 0.0], p=[won, lost, 1 - won - lost], size=(draws, 96))
    found = [paired_shares(each, confidence=confidence) for each in values]
    covered = np.mean([one.low <= 100 * (won - lost) <= one.high for one in found])
    assert covered >= confidence - 0.01
    assert max(one.high - one.low for one in found) < 100  # not vacuous


def test_shares_of_pairs_are_in_percent():
    with pytest.raises(ValueError, match="`values` must be"):
        paired_shares([1.0, 0.0])


def test_ranks_of_sampled_flips_are_exact(monkeypatch):
    """Of 100,000 sums, 125 lie outside on each side at 99.75 %, though 1 - 0.9975 is rounded."""
    sums = np.arange(1.0, 100_001.0)
    monkeypatch.setattr(
        intervals, "_subset_sums", lambda *_: (sums, np.ones(sums.size, int)), raising=True
    )
    found = intervals.sign_flip_interval([0.0, 1.0, 2.0], confidence=0.9975)
    assert (found.low, found.high) == (sums[125], sums[-126])
