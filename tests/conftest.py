"""What all tests share: workers with one thread each, random states that depend on no other test, data, a cache.

Two tiers. `python -m pytest` tells within minutes whether the library works: at most five minutes in all on two cores,
and no test of more than about ten seconds. A test that must take longer is marked `slow` (`python -m pytest -m slow`;
`.ci/run` runs both tiers), and a smaller one of the same family, or of the same code, stays in the first tier.
Before marking one, make it cheaper: train a model once for a module (a fixture of scope "module"), take the smallest
space or the fewest steps that still fail when the formula is wrong, and call `main([...])` in place of a process unless
the process is what is tested.

Tests go to workers one by one, so none may rely on another having run before it. `-n 0` runs them in one process.
"""

import os
import random
from pathlib import Path

# before torch is imported, here and in the processes that tests start: as many threads as workers would be too many,
# and one thread adds in one order
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

MOST_WORKERS = 4  # each imports all of the library and holds its own models of module scope


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """A worker per core for the whole suite, none for files that are named: starting them takes longer than a file."""
    if config.args and all(argument.split("::")[0].endswith(".py") for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0


def seed_everything():
    import numpy as np  # here, since what hands out tests to workers needs neither
    import torch

    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """What a module shares is the same whichever of its tests comes first."""
    if fixturedef.scope != "function":
        seed_everything()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    seed_everything()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    seed_everything()


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
