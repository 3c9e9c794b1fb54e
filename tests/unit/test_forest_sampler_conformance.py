"""Optuna's own conformance tests for samplers of one objective."""

import optuna
import pytest
from optuna.testing import pytest_samplers

from ml_postgres_optimization.tuning.search.forest_sampler import ForestSampler


class ForestSamplerCase:
    @pytest.fixture(autouse=True)
    def _quiet(self):
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    @pytest.fixture
    def sampler(self):
        return lambda: ForestSampler(seed=0, startup_trials=3)


class TestBasic(ForestSamplerCase, pytest_samplers.BasicSamplerTestCase):
    pass


class TestRelative(ForestSamplerCase, pytest_samplers.RelativeSamplerTestCase):
    pass


class TestSingleObjective(ForestSamplerCase, pytest_samplers.SingleOnlySamplerTestCase):
    pass
