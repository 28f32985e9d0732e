import contextlib
import signal
import sys
import threading
import time

import numpy as np
import pytest

from lth_jax.store import Interrupted, checkpoints, interruptible, on_signals


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_until_it_is_asked_for(signum, code):
    with on_signals() as stop:
        stop.check()
        assert not stop.requested
        signal.raise_signal(signum)
        assert stop.requested
        with pytest.raises(Interrupted) as error:
            stop.check()
    assert (error.value.code, error.value.signal) == (code, signum.name)


def test_a_second_signal_does_not_wait():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with on_signals():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_interruptible_block_ends_at_once(signum):
    with pytest.raises(Interrupted) as error, interruptible():
        signal.raise_signal(signum)
        time.sleep(60)
    assert (error.value.code, error.value.signal) == (128 + signum, signum.name)


def test_a_stop_that_waits_ends_at_once_by_a_second_signal():
    with pytest.raises(Interrupted), interruptible(), on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)


@pytest.mark.parametrize("kind", ["save", "restore"])
def test_threads_report_nothing_after_a_signal_during(kind, tmp_path, monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    arrays = {f"x{i}": np.zeros(1000, np.float32) for i in range(8)}
    checkpoints.save(tmp_path / "whole", arrays)
    calls = {
        "save": lambda i: checkpoints.save(tmp_path / str(i), arrays),
        "restore": lambda i: checkpoints.restore(tmp_path / "whole"),
    }
    for i in range(40):
        with contextlib.suppress(Interrupted), interruptible():
            to = (threading.main_thread().ident, signal.SIGTERM)
            threading.Timer(0.0003 * i, signal.pthread_kill, to).start()
            calls[kind](i)
            for _ in range(6000):  # Python sees a signal that comes just before a sleep after it
                time.sleep(0.01)
    time.sleep(0.1)
    assert not reports


class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)  # the handler runs here, and Python drops what it raises


def test_an_exception_that_python_drops_is_raised_again():
    with pytest.raises(Interrupted), interruptible():
        Dying()
        time.sleep(60)


@pytest.mark.parametrize("signals", [[], [signal.SIGTERM]])
def test_handlers_are_put_back(signals):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with on_signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
        for number in signals:
            signal.raise_signal(number)
            assert signal.getsignal(signal.SIGTERM) == before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
