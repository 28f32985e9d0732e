import time

from lth_jax.analysis.timing import alternated, time_saved


def test_functions_take_turns_after_a_call_that_compiles():
    calls = []
    times = alternated({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for seconds in times.values() for second in seconds)


def test_time_saved_is_a_percentage_of_each_block():
    saved = time_saved(lambda: time.sleep(0.004), lambda: None, (3, 2))
    assert saved.shape == (3,) and (saved > 50).all() and (saved < 100).all()
