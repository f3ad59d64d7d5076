"""The pytest settings for tests on a mutant. Only `make mutants` loads this plugin."""

import signal

import pytest
from hypothesis import Phase, settings

# A mutant that only a random example finds shows a gap in the written ones.
settings.register_profile("mutants", deadline=None, database=None, phases=[Phase.explicit])


def pytest_configure() -> None:
    # mutmut stops a slow mutant with this signal. pytest must exit, so that the servers of its tests end too.
    signal.signal(signal.SIGXCPU, _end)


def _end(*_: object) -> None:
    pytest.exit("this mutant never ends", returncode=signal.SIGXCPU)
