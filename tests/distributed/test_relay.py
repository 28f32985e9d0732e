"""The relay between a process and the coordinator, with sockets in the place of both."""

import socket
import threading

import pytest

from lth_jax.distributed.relay import relay


@pytest.fixture
def joined():
    """Both ends of a connection through a relay, and whether it has reported a loss."""
    lost = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as coordinator:
        port = relay("127.0.0.1", coordinator.getsockname()[1], lost.set)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as near:
            far, _ = coordinator.accept()
            with far:
                far.settimeout(10)
                yield near, far, lost


def test_data_pass_in_both_directions(joined):
    near, far, lost = joined
    for one, other in ((near, far), (far, near)):
        one.sendall(b"x" * 100_000)
        got = b""
        while len(got) < 100_000:
            got += other.recv(100_000)
        assert got == b"x" * 100_000
    assert not lost.is_set()


def test_this_end_stays_open_when_the_coordinator_is_gone(joined):
    near, far, lost = joined
    far.close()
    assert lost.wait(10)
    near.settimeout(0.1)
    with pytest.raises(TimeoutError):  # and not an end of file
        near.recv(1)


def test_an_end_that_this_process_closes_is_no_loss(joined):
    near, far, lost = joined
    near.close()
    assert far.recv(1) == b""
    assert not lost.wait(0.2)


def test_a_coordinator_that_starts_later_is_reached():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = found.getsockname()
    port = relay(*address, lambda: None)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as near:
        near.sendall(b"early")
        with socket.create_server(address) as coordinator:
            far, _ = coordinator.accept()
            with far:
                far.settimeout(10)
                assert far.recv(5) == b"early"
