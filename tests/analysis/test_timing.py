import time

from lth_jax.analysis.timing import alternated, relative_times


def test_functions_take_turns_and_each_timed_call_follows_one_that_is_not():
    calls = []
    times = alternated({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b", *["a", "a", "b", "b"] * 3]
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for seconds in times.values() for second in seconds)


def test_times_are_relative_to_the_first_function():
    found = relative_times({"slow": lambda: time.sleep(0.004), "fast": lambda: None}, 2)
    assert found["slow"] == 1 and found["fast"] < 0.5
