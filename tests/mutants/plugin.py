"""The settings for tests on a mutant: pytest loads this for `make mutants` only."""

import signal

import pytest
from hypothesis import Phase, settings

# A mutant that only a random example finds shows a gap in the written ones.
settings.register_profile("mutants", deadline=None, database=None, phases=[Phase.explicit])


def pytest_configure() -> None:
    # mutmut ends so a mutant that takes too long: the servers of its tests are to end with it.
    signal.signal(signal.SIGXCPU, _end)


def _end(*_: object) -> None:
    pytest.exit("this mutant never ends", returncode=signal.SIGXCPU)
