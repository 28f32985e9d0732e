import json
import platform
import socket

import jax

from lth_jax.store import canonical, environment


def test_environment_names_versions_and_devices():
    found = environment()
    assert found["python"] == platform.python_version()
    assert found["versions"]["jax"] == jax.__version__
    assert None not in found["versions"].values()
    assert found["device"] == {
        "platform": jax.devices()[0].platform,
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
    }


def test_environment_is_json_and_does_not_name_the_machine():
    text = canonical(environment())
    assert json.loads(text) == environment()
    assert socket.gethostname() not in text
    assert "/" not in text
