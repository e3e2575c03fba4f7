"""What all tests share: the real data, where it is, a cache, and one torch thread where the environment asks for it."""

import os
from pathlib import Path

import pytest


def pytest_configure(config):
    if os.environ.get("OMP_NUM_THREADS") == "1":
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Judges that tests train are kept for the session, and apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def genzoo_data() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    folder = os.environ.get("GENZOO_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GENZOO_DATA names no folder with MNIST, Fashion-MNIST and CIFAR-10")
    return Path(folder)
