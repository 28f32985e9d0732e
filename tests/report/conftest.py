import pytest

from lth_jax import store
from lth_jax.report.levels import read_run
from tests.report import synthetic

LOST = (2, "ticket", 3)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A finished run on disk, in which one ticket diverged."""
    nodes = synthetic.ladder(levels=3, diverged=[LOST])
    return synthetic.write(tmp_path_factory.mktemp("runs"), nodes=nodes)


@pytest.fixture(scope="session")
def shelf(written, tmp_path_factory):
    """The store in which the run lies."""
    return store.Store(written.path.rpartition("/")[0])


@pytest.fixture(scope="session")
def run(written, shelf):
    """The run, read back."""
    return read_run(shelf, written.path)


@pytest.fixture
def read(tmp_path):
    """Writes a run with the given nodes and reads it back."""

    def write_and_read(nodes, **options):
        info = synthetic.write(tmp_path, nodes=nodes, **options)
        return read_run(store.Store(tmp_path), info.path)

    return write_and_read
