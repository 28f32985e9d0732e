"""One folder of prepared data for all tests of this folder, made without a network."""

import socket

import pytest

import lth_jax.data


def _shut(*args, **kwargs):
    raise AssertionError("data must not reach for the network")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _shut)
        patch.setattr(socket, "getaddrinfo", _shut)
        for name in ("digits", "mnist1d"):
            lth_jax.data.load(name, data_dir=folder, seed=0, validation=0)
    return folder
