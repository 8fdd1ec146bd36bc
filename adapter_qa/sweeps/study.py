"""The trials of a sweep in Optuna's storage: who has which, what came of it, and that none is lost or done twice.

Trial n of a sweep is trial n of its study, for good: its parameters are drawn from the sweep's seed and n, its folder
is named by n, and numbers from the sweep's count upwards are not run. A trial goes from waiting to running, which one
worker alone can bring about (both kinds of storage see to that), and from running to its end or back to waiting.

A worker that runs a trial renews a lease on it: its name and a counter. Optuna's own heartbeat is there for databases
only, and file locks are not seen by machines that share a database and no folder, so the lease is an attribute of the
trial. Clocks are not compared: whoever sees the same lease for the whole of a lease's time, by its own clock, puts the
trial back to waiting, and the next worker goes on with the same parameters in the same folder. A worker that was only
held up finds another's name in the lease and lets go of the trial.
"""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from adapter_qa.core.errors import RunError, UserError
from adapter_qa.core.files import write_json
from adapter_qa.core.messages import log_note
from adapter_qa.core.resource_errors import first_line
from adapter_qa.sweeps.search_space import Choices, Range, Sweep

JOURNAL_FILE = "journal.log"
SWEEP_FILE = "sweep.json"
TRIALS_FOLDER = "trials"
OPENINGS = 5  # attempts, a second apart, at a database whose tables others are making
BEATS = 6  # times that a lease is renewed within its time
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class NumberedSampler(BaseSampler):
    """A sampler made anew for every trial, from the sweep's seed and the trial's number.

    One sampler a worker would draw the same parameters in each of several workers with the same seed.
    """

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.combinations = sweep.combinations() if sweep.sampler["kind"] == "grid" else None
        self.made: BaseSampler = RandomSampler()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Makes the sampler."""
        seed = random.Random(f"{self.sweep.seed} {trial.number}").getrandbits(32)
        settings = {name: value for name, value in self.sweep.sampler.items() if name != "kind"}
        if self.combinations is not None:
            at = trial.number % len(self.combinations)
            self.made = PartialFixedSampler(self.combinations[at], RandomSampler(seed))
        elif self.sweep.sampler["kind"] == "random":
            self.made = RandomSampler(seed)
        else:
            self.made = TPESampler(seed=seed, **settings)
        self.made.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler made for the trial."""
        return self.made.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler made for the trial."""
        return self.made.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler made for the trial."""
        return self.made.sample_independent(study, trial, param_name, param_distribution)


class TrialStore:
    """The trials of a sweep.

    Attributes:
        sweep: what is asked for.
        folder: of the sweep.
        study: Optuna's.
        lease: seconds after which a trial whose worker gives no sign of life is another's.
        worker: this worker's name.
    """

    def __init__(self, sweep: Sweep, folder: Path, storage: BaseStorage, name: str, lease: float):
        self.sweep = sweep
        self.folder = folder
        self.storage = storage
        self.lease = lease
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.study = make_study(sweep, storage, name)
        self._study_id = storage.get_study_id_from_name(name)
        self._distributions = {name: distribution(one) for name, one in sweep.search.items()}
        self._beat = 0
        self._next_beat = 0.0
        self._seen: dict[int, tuple[Any, float]] = {}  # lease of others' trials, and since when it has been the same
        self._looked = 0.0  # when that was last looked at
        self._check_settings(name)

    def _check_settings(self, name: str) -> None:
        """Notes what the sweep asks for where it is new.

        Raises:
            UserError: it was begun with other settings.
        """
        settings = self.sweep.settings()
        before = self.study.user_attrs.get("settings")
        if before is None:
            self.study.set_user_attr("settings", settings)
        elif before != settings:
            differing = [entry for entry in settings if before.get(entry) != settings[entry]]
            raise UserError(
                f"sweep {name}: was begun with other settings ({', '.join(differing)}); give another --output_dir"
            )

    def trials(self) -> list[FrozenTrial]:
        """Those of the sweep that there are so far, by number."""
        return self.study.get_trials(deepcopy=False)[: self.sweep.trials]

    def all_done(self) -> bool:
        """Whether every trial has come to its end."""
        trials = self.trials()
        return len(trials) == self.sweep.trials and all(one.state.is_finished() for one in trials)

    def claim(self) -> Trial | None:
        """A trial that from now on is this worker's, with its parameters; None if none is free."""
        trials = self.trials()
        if len(trials) == self.sweep.trials and all(one.state != TrialState.WAITING for one in trials):
            return None
        trial = self.study.ask(self._distributions)
        if trial.number >= self.sweep.trials:  # another worker was faster
            self.give_back(trial.number)
            return None
        self._beat, self._next_beat = 0, 0.0
        self._renew(trial)
        return trial

    def _renew(self, trial: Trial) -> None:
        trial.set_user_attr("lease", {"worker": self.worker, "beat": self._beat})
        self._beat += 1
        self._next_beat = time.monotonic() + self.lease / BEATS

    def still_ours(self, number: int) -> bool:
        """Whether a trial is running and this worker's."""
        trial = self.trials()[number]
        return trial.state == TrialState.RUNNING and trial.user_attrs.get("lease", {}).get("worker") == self.worker

    def keep(self, trial: Trial) -> bool:
        """Renews the lease where it is time to, and frees trials that others have left; to be called all the time.

        Returns:
            Whether the trial is still this worker's.
        """
        if time.monotonic() < self._next_beat:
            return True
        if not self.still_ours(trial.number):
            return False
        self._renew(trial)
        self.free_abandoned()
        return True

    def free_abandoned(self) -> None:
        """Puts trials of workers that have given no sign of life for a lease back to waiting.

        Where this worker itself was held up, by a storage that all were waiting for, it begins to watch anew.
        """
        now = time.monotonic()
        if now - self._looked > self.lease / 2:
            self._seen.clear()
        self._looked = now
        for trial in self.trials():
            lease = trial.user_attrs.get("lease")
            owner = (lease or {}).get("worker")
            if trial.state != TrialState.RUNNING or owner == self.worker:
                self._seen.pop(trial.number, None)
                continue
            before, since = self._seen.get(trial.number, (None, now))
            if trial.number not in self._seen or before != lease:
                self._seen[trial.number] = (lease, now)
            elif now - since > self.lease:
                del self._seen[trial.number]
                self.give_back(trial.number)
                log_note([f"trial {trial.number}: no sign of life from {owner or 'its worker'}; it goes on elsewhere"])

    def give_back(self, number: int) -> None:
        """Puts a trial that is running back to waiting: parameters and evaluations stay."""
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        if self.storage.get_trial(trial_id).state == TrialState.RUNNING:
            self.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def release(self, number: int) -> None:
        """Gives a trial back that is still this worker's and has not come to its end."""
        if self.still_ours(number):
            self.give_back(number)

    def close(self, number: int, state: TrialState, value: float | None = None, **facts: Any) -> bool:
        """Writes the end of a trial; whether it was still this worker's to write."""
        if not self.still_ours(number):
            return False
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        for name, fact in facts.items():
            self.storage.set_trial_user_attr(trial_id, name, fact)
        self.study.tell(number, value, state)
        return True

    def best(self) -> FrozenTrial | None:
        """The finished trial with the best value; the first of equals."""
        finished = [one for one in self.trials() if one.state == TrialState.COMPLETE]
        ordered = sorted(finished, key=lambda one: one.value or 0.0, reverse=self.sweep.maximize)
        return ordered[0] if ordered else None

    def write_report(self) -> None:
        """Writes sweep.json: every trial. Each worker writes aside under its own name, and whoever is last is right."""
        best = self.best()
        document = {
            "study": self.study.study_name,
            "settings": {"trials": self.sweep.trials, **self.sweep.settings()},
            "best": best.number if best is not None else None,
            "trials": [self._described(one) for one in self.trials()],
        }
        aside = self.folder / f".{self.worker}.json"
        write_json(aside, document)
        os.replace(aside, self.folder / SWEEP_FILE)

    def _described(self, trial: FrozenTrial) -> dict[str, Any]:
        facts = trial.user_attrs
        return {
            "number": trial.number,
            "state": STATES[trial.state],
            "params": trial.params,
            self.sweep.metric: trial.value,
            "evaluations": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
            "seconds": facts.get("seconds"),
            "folder": str(trial_folder(self.folder, trial.number)),
            "exit_code": facts.get("exit_code"),
            "why": facts.get("why"),
        }


def trial_folder(folder: Path, number: int) -> Path:
    """The run's folder. It is the number's, so that whoever goes on with a trial finds its checkpoints."""
    return folder / TRIALS_FOLDER / f"{number:04d}"


def distribution(one: Choices | Range) -> BaseDistribution:
    """An entry of the search as Optuna has it."""
    if isinstance(one, Choices):
        return CategoricalDistribution(one.values)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def make_study(sweep: Sweep, storage: BaseStorage | None, name: str) -> optuna.Study:
    """The study of that name, made if there is none; without a storage one that is kept nowhere."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    settings = {name: value for name, value in sweep.pruner.items() if name != "kind"}
    kinds = {
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    return optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize" if sweep.maximize else "minimize",
        sampler=NumberedSampler(sweep),
        pruner=kinds[sweep.pruner["kind"]](**settings),
        load_if_exists=True,
    )


def first_trials(sweep: Sweep, count: int) -> list[dict[str, Any]]:
    """The parameters of the first trials, as a sweep without any result draws them."""
    study = make_study(sweep, None, "drawn")
    distributions = {name: distribution(one) for name, one in sweep.search.items()}
    return [study.ask(distributions).params for _ in range(min(count, sweep.trials))]


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The journal in the sweep's folder, which is made, or a database.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        (folder / TRIALS_FOLDER).mkdir(parents=True, exist_ok=True)
        if url is None:
            # Absolute: its lock is a symbolic link to it, which must lead somewhere.
            return JournalStorage(JournalFileBackend(str((folder / JOURNAL_FILE).absolute())))
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot be written ({error.strerror}); give another folder") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder / JOURNAL_FILE}: is damaged ({error}); give another --output_dir") from error
    try:
        return open_database(url)
    except ImportError as error:
        driver = sqlalchemy.make_url(url).drivername
        raise UserError(f"--storage: the driver of {driver} is not installed; pip install it") from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--storage: cannot be opened ({first_line(error)}); give a URL such as mysql+pymysql://USER@HOST/DATABASE"
        ) from error


def open_database(url: str) -> RDBStorage:
    """Optuna's tables in a database, made if there are none; workers that begin together make them at the same time.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, ValueError, RuntimeError: it cannot be opened, or holds another Optuna's tables.
        ImportError: its driver is not installed.
    """
    for _ in range(OPENINGS):
        try:
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except sqlalchemy.exc.DBAPIError as error:
            if not any(words in str(error).lower() for words in ("already exists", "unique", "duplicate")):
                raise
            time.sleep(1)
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


@contextmanager
def storage_explained() -> Iterator[None]:
    """Within it a database that gives way comes out as `RunError`.

    Raises:
        RunFailure: with the database's reason.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise RunError(f"the storage failed ({first_line(error)}); the same command goes on") from error
