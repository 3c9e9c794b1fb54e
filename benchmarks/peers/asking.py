"""Random search, TPE, GP and SMAC3, each over the same parameters as our own search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Parameters = dict[str, Any]


class Peer(Protocol):
    """A tuner that is asked for parameters, and told a loss: lower is better."""

    def ask(self) -> Parameters:
        """Return what to measure next."""

    def tell(self, parameters: Parameters, loss: float) -> None:
        """Take what the last parameters came to."""


class OptunaPeer:
    """One of Optuna's own samplers, with the settings that it has by itself; the stock configuration comes first."""

    def __init__(
        self, sampler: optuna.samplers.BaseSampler, space: Mapping[str, BaseDistribution], first: Parameters
    ) -> None:
        self._study = optuna.create_study(sampler=sampler)
        self._study.enqueue_trial(first)
        self._space = dict(space)
        self._trial: optuna.trial.Trial | None = None

    def ask(self) -> Parameters:
        """Ask the study."""
        self._trial = self._study.ask(fixed_distributions=self._space)
        return dict(self._trial.params)

    def tell(self, parameters: Parameters, loss: float) -> None:
        """Tell the study."""
        self._study.tell(self._trial, loss)


class SmacPeer:
    """SMAC3's facade for hyperparameters (random forest, log expected improvement), asked one by one."""

    def __init__(self, space: Mapping[str, BaseDistribution], first: Parameters, *, seed: int, folder: str) -> None:
        from ConfigSpace import Configuration, ConfigurationSpace  # noqa: PLC0415 - an extra of the benchmarks
        from smac import HyperparameterOptimizationFacade, Scenario  # noqa: PLC0415

        configurations = ConfigurationSpace(seed=seed)
        configurations.add([_hyperparameter(name, distribution) for name, distribution in space.items()])
        scenario = Scenario(
            configurations, deterministic=True, n_trials=10_000, seed=seed, output_directory=folder, n_workers=1
        )
        facade = HyperparameterOptimizationFacade
        self._smac = facade(
            scenario,
            _never_called,
            # asked one by one, there is no budget of trials to take a quarter of: ten are SMAC's usual ten per cent
            initial_design=facade.get_initial_design(
                scenario,
                n_configs=10,
                additional_configs=[Configuration(configurations, values=_as_smac(first, space))],
            ),
            overwrite=True,
            logging_level=40,
        )
        self._space = dict(space)
        self._asked: Any = None

    def ask(self) -> Parameters:
        """Ask SMAC."""
        self._asked = self._smac.ask()
        return _as_optuna(dict(self._asked.config), self._space)

    def tell(self, parameters: Parameters, loss: float) -> None:
        """Tell SMAC."""
        from smac.runhistory.dataclasses import TrialValue  # noqa: PLC0415

        self._smac.tell(self._asked, TrialValue(cost=loss))


def peer(name: str, space: Mapping[str, BaseDistribution], first: Parameters, *, seed: int, folder: str) -> Peer:
    """Make the tuner of that name.

    Parameters
    ----------
    name : str
        ``random``, ``tpe``, ``gp`` or ``smac``.
    space : mapping of str to optuna distribution
    first : dict
        The stock configuration, which each measures first.
    seed : int
    folder : str
        For what it writes.
    """
    if name == "smac":
        return SmacPeer(space, first, seed=seed, folder=folder)
    samplers = {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
    }
    return OptunaPeer(samplers[name](), space, first)


def _never_called(config: Any, seed: int = 0) -> float:
    raise RuntimeError("SMAC is asked and told; it never calls the target itself")


def _hyperparameter(name: str, distribution: BaseDistribution) -> Any:
    from ConfigSpace import CategoricalHyperparameter, UniformFloatHyperparameter  # noqa: PLC0415
    from ConfigSpace import UniformIntegerHyperparameter as UniformInteger  # noqa: PLC0415

    match distribution:
        case CategoricalDistribution():
            return CategoricalHyperparameter(name, [str(choice) for choice in distribution.choices])
        case IntDistribution():
            return UniformInteger(name, distribution.low, distribution.high, log=distribution.log)
        case FloatDistribution():
            return UniformFloatHyperparameter(name, distribution.low, distribution.high, log=distribution.log)
    raise TypeError(f"a distribution of a kind that is not known: {distribution!r}")


def _as_smac(parameters: Parameters, space: Mapping[str, BaseDistribution]) -> Parameters:
    return {
        name: str(value) if isinstance(space[name], CategoricalDistribution) else value
        for name, value in parameters.items()
    }


def _as_optuna(values: Parameters, space: Mapping[str, BaseDistribution]) -> Parameters:
    parameters: Parameters = {}
    for name, distribution in space.items():
        value = values[name]
        if isinstance(distribution, CategoricalDistribution):
            value = next(choice for choice in distribution.choices if str(choice) == str(value))
        parameters[name] = int(value) if isinstance(distribution, IntDistribution) else value
    return parameters
