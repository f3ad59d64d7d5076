"""The pytest settings for tests on a mutant. Only `make mutants` loads this plugin."""

import contextlib
import os
import resource
from functools import partial
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import sandbox.embedded_aws
from sandbox.embedded_aws import EmbeddedAws

# A mutant that only a random example finds shows a gap in the written ones.
settings.register_profile("mutants", deadline=None, database=None, phases=[Phase.explicit])

# mutmut ends a mutant that takes too long with SIGXCPU, which would leave a core file for each of them.
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

# All mutants share one embedded AWS, because its start takes longer than most tests.
running = EmbeddedAws(os.environ["MUTANTS_AWS"], Path(os.environ["MUTANTS_AWS_AUTHORITY"]), Path(os.devnull))
sandbox.embedded_aws.embedded_aws = partial(contextlib.nullcontext, running)  # type: ignore[assignment]


@pytest.hookimpl(tryfirst=True)  # pytest then groups the tests by the parameters of their fixtures
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run unit tests, then integration tests, then the explorer, and the tests of a module in the order of the file.

    mutmut names the tests in any order, so that pytest would set up the fixtures of a module again and again.
    """
    items.sort(key=lambda item: item.location[1] or 0)
    items.sort(key=lambda item: str(item.path), reverse=True)
