"""Eight simulated devices, quiet JAX, and the quick tests before the slow ones."""

import os
import shutil
import sys
from pathlib import Path

import pytest

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's own messages: errors only
sys.path.insert(0, str(Path(__file__).parents[1]))  # for `experiments` and `configs`

MARKERS = {
    "slow": "takes more than a few seconds; runs after the others",
    "data": "needs a data set that is not part of the repository",
}


def pytest_configure(config):
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data: $PAVJAX_DATA, or ../shared/data beside the repository;
    tests that need it are skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PAVJAX_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (PAVJAX_DATA)")
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """An undisturbed run of all stages of the micro config."""
    from micro_run import run_whole  # brings JAX along

    return run_whole(*(tmp_path_factory.mktemp(name) for name in ("whole", "cache")))


@pytest.fixture
def copy(whole, tmp_path):
    """The work directory of an undisturbed run, to be spoilt."""
    return shutil.copytree(whole.workdir, tmp_path / "copy")
