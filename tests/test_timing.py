import time

import pytest

from lth_jax.timing import alternated, relative_times


@pytest.mark.parametrize(("warm", "turn"), [(False, "ab"), (True, "aabb")])
def test_functions_take_turns_after_a_call_that_compiles(warm, turn):
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = alternated(functions, 3, warm=warm)
    assert "".join(calls) == "ab" + 3 * turn
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for seconds in times.values() for second in seconds)


def test_times_are_relative_to_the_first_function():
    found = relative_times({"slow": lambda: time.sleep(0.004), "fast": lambda: None}, 2)
    assert found["slow"] == 1 and found["fast"] < 0.5
