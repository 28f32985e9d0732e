import platform

import jax

from lth_jax.store import environment


def test_environment_names_versions_and_devices():
    found = environment()
    assert set(found) == {"python", "versions", "device"}  # nothing that names the machine
    assert found["python"] == platform.python_version()
    assert found["versions"]["jax"] == jax.__version__
    assert None not in found["versions"].values()
    assert found["device"] == {
        "platform": jax.devices()[0].platform,
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
    }
