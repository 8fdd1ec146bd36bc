"""Keep the trials of a sweep in Optuna's storage, so that no trial is lost and none is done twice.

Trial n of a sweep is always trial n of its study. Its parameters are drawn from the sweep's seed and n, and n names its
folder. Trials with a number beyond the sweep's count are never run. A trial changes from waiting to running, which both
kinds of storage allow only one worker to do, and from running to its end or back to waiting.

The worker that runs a trial renews a lease on it: the worker's name and a counter, stored as an attribute of the trial.
Optuna's own heartbeat exists for databases only, and machines that share a database but no folder do not see each
other's file locks. Clocks are not compared. A worker that sees the same lease for a whole lease time, by its own clock,
puts the trial back to waiting, and the next worker resumes it with the same parameters in the same folder. A worker
that was only delayed finds another name in the lease and gives up the trial.
"""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from adapter_qa.core.errors import RunError, UserError
from adapter_qa.core.files import write_json
from adapter_qa.core.messages import log_note
from adapter_qa.core.resource_errors import first_line
from adapter_qa.runs.layout import JOURNAL_FILE, SWEEP_FILE, TRIALS_FOLDER, trial_folder
from adapter_qa.sweeps.analysis import importance
from adapter_qa.sweeps.journal import Journal, damaged
from adapter_qa.sweeps.search_space import Choices, SearchEntry, Sweep

CONNECTION_ATTEMPTS = 5  # one second apart, while other workers create the tables of a database
RENEWALS_PER_LEASE = 6
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class NumberedSampler(BaseSampler):
    """A sampler that is created anew for every trial, from the sweep's seed and the trial's number.

    With one sampler per worker, several workers with the same seed would draw the same parameters.
    """

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.combinations = sweep.combinations() if sweep.sampler.kind == "grid" else None
        self.sampler: BaseSampler = RandomSampler()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Create the trial's sampler."""
        seed = random.Random(f"{self.sweep.seed} {trial.number}").getrandbits(32)
        if self.combinations is not None:
            combination = self.combinations[trial.number % len(self.combinations)]
            self.sampler = PartialFixedSampler(combination, RandomSampler(seed))
        elif self.sweep.sampler.kind == "random":
            self.sampler = RandomSampler(seed)
        else:
            self.sampler = TPESampler(seed=seed, **self.sweep.sampler.settings)
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Delegate to the trial's sampler."""
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Delegate to the trial's sampler."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Delegate to the trial's sampler."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)


class TrialStore:
    """The trials of a sweep, as one worker sees and changes them.

    The settings of a new sweep are stored. UserError is raised if an existing sweep has other settings.

    Attributes:
        sweep: the sweep, in the order in which its first worker read it.
        folder: the sweep's folder.
        lease: seconds without a renewed lease after which another worker takes a trial over.
        worker: unique name of this worker.
        note: prints notes.
    """

    def __init__(self, sweep: Sweep, folder: Path, storage: BaseStorage, name: str, lease: float):
        self.folder = folder
        self.storage = storage
        self.lease = lease
        self.note: Callable[[Iterable[str]], None] = log_note
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.study = create_study(sweep, storage, name)
        self._study_id = storage.get_study_id_from_name(name)
        self._renewals = 0
        self._next_renewal = 0.0
        self._leases_seen: dict[int, tuple[Any, float]] = {}  # other workers' leases, and when each was first seen
        self._last_check = 0.0
        settings = sweep.settings()
        stored = self.study.user_attrs.get("settings")
        if stored is None:
            self.study.set_user_attr("settings", settings)
            stored = settings
        elif stored != settings:
            differing = [entry for entry in settings if stored.get(entry) != settings[entry]]
            raise UserError(
                f"sweep {name}: was started with other settings ({', '.join(differing)}); give another --output_dir"
            )
        # The parameters of a trial depend on the order of the search.
        self.sweep = sweep.in_order_of(stored["search"])
        self.study.sampler = NumberedSampler(self.sweep)
        self._distributions = distributions(self.sweep)

    def trials(self) -> list[FrozenTrial]:
        """Return the sweep's trials so far, ordered by number."""
        return self.study.get_trials(deepcopy=False)[: self.sweep.trials]

    def all_done(self) -> bool:
        """Return whether every trial has ended."""
        trials = self.trials()
        return len(trials) == self.sweep.trials and all(trial.state.is_finished() for trial in trials)

    def claim(self) -> Trial | None:
        """Return a trial that now belongs to this worker, with its parameters; None if no trial is free."""
        trials = self.trials()
        if len(trials) == self.sweep.trials and all(trial.state != TrialState.WAITING for trial in trials):
            return None
        trial = self.study.ask(self._distributions)
        if trial.number >= self.sweep.trials:  # another worker was faster
            self._requeue(trial.number)
            return None
        self._renewals = 0
        self._write_lease(trial)
        return trial

    def _write_lease(self, trial: Trial) -> None:
        trial.set_user_attr("lease", {"worker": self.worker, "beat": self._renewals})
        self._renewals += 1
        self._next_renewal = time.monotonic() + self.lease / RENEWALS_PER_LEASE

    def owns(self, number: int) -> bool:
        """Return whether a trial is running and belongs to this worker."""
        trial = self.trials()[number]
        return trial.state == TrialState.RUNNING and trial.user_attrs.get("lease", {}).get("worker") == self.worker

    def renew_lease(self, trial: Trial) -> bool:
        """Return whether a trial still belongs to this worker; call it frequently while the trial runs.

        If a renewal is due, renew the trial's lease and put abandoned trials back to waiting.
        """
        if time.monotonic() < self._next_renewal:
            return True
        if not self.owns(trial.number):
            return False
        self._write_lease(trial)
        self.requeue_abandoned()
        return True

    def requeue_abandoned(self) -> None:
        """Put trials back to waiting whose workers have not renewed the lease for a whole lease time.

        A worker that was delayed itself, for example by a storage that blocked all workers, forgets what it saw before.
        """
        now = time.monotonic()
        if now - self._last_check > self.lease / 2:
            self._leases_seen.clear()
        self._last_check = now
        for trial in self.trials():
            lease = trial.user_attrs.get("lease")
            owner = (lease or {}).get("worker")
            if trial.state != TrialState.RUNNING or owner == self.worker:
                self._leases_seen.pop(trial.number, None)
                continue
            seen, since = self._leases_seen.get(trial.number, (None, now))
            if trial.number not in self._leases_seen or seen != lease:
                self._leases_seen[trial.number] = (lease, now)
            elif now - since > self.lease:
                del self._leases_seen[trial.number]
                self._requeue(trial.number)
                owner = owner or "its worker"
                self.note([f"trial {trial.number}: {owner} does not respond; another worker resumes it"])

    def _requeue(self, number: int) -> None:
        """Put a running trial back to waiting; its parameters and evaluations stay."""
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        if self.storage.get_trial(trial_id).state == TrialState.RUNNING:
            self.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def release(self, number: int) -> None:
        """Put a trial back to waiting if it still belongs to this worker and has not ended."""
        if self.owns(number):
            self._requeue(number)

    def record_outcome(
        self,
        number: int,
        state: TrialState,
        value: float | None = None,
        *,
        exit_code: int | None = None,
        why: list[str] | None = None,
    ) -> bool:
        """Store how a trial ended: its metric, the exit code of its process, the reasons of a failure.

        Returns:
            Whether the trial still belonged to this worker; otherwise nothing is stored.
        """
        if not self.owns(number):
            return False
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self.storage.set_trial_user_attr(trial_id, "exit_code", exit_code)
        self.storage.set_trial_user_attr(trial_id, "why", why)
        self.study.tell(number, value, state)
        return True

    def best(self) -> FrozenTrial | None:
        """Return the finished trial with the best value, the first of equal ones; None if no trial is finished."""
        return best_trial(self.trials(), self.sweep)

    def write_report(self) -> None:
        """Write sweep.json. Every worker writes it from the storage, so the report written last is current."""
        best = self.best()
        trials = [
            {
                "number": trial.number,
                "state": STATES[trial.state],
                "params": trial.params,
                self.sweep.metric: trial.value,
                "evaluations": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
                "seconds": trial.user_attrs.get("seconds"),
                "folder": str(trial_folder(self.folder, trial.number)),
                "exit_code": trial.user_attrs.get("exit_code"),
                "why": trial.user_attrs.get("why"),
            }
            for trial in self.trials()
        ]
        document = {
            "study": self.study.study_name,
            "settings": {"trials": self.sweep.trials, **self.sweep.settings()},
            "best": best.number if best is not None else None,
            "importance": importance(self.trials(), self.sweep) if self.all_done() else None,
            "trials": trials,
        }
        write_json(self.folder / SWEEP_FILE, document, writer=self.worker)


def best_trial(trials: Iterable[FrozenTrial], sweep: Sweep) -> FrozenTrial | None:
    """Return the finished trial with the best value, the first of equal ones; None if no trial is finished."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    select = max if sweep.maximize else min
    return select(finished, key=lambda trial: trial.value or 0.0, default=None)


def distributions(sweep: Sweep) -> dict[str, BaseDistribution]:
    """Return the entries of the search as Optuna's distributions."""

    def distribution(entry: SearchEntry) -> BaseDistribution:
        if isinstance(entry, Choices):
            return CategoricalDistribution(tuple(entry.choices))
        if isinstance(entry.low, int):
            return IntDistribution(entry.low, int(entry.highest), log=entry.log, step=int(entry.step or 1))
        return FloatDistribution(entry.low, entry.highest, log=entry.log, step=entry.step)

    return {name: distribution(entry) for name, entry in sweep.search.items()}


def create_study(sweep: Sweep, storage: BaseStorage | None, name: str) -> optuna.Study:
    """Load the study called `name`, or create it; without a storage it exists in memory only."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    pruners = {
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    return optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize" if sweep.maximize else "minimize",
        sampler=NumberedSampler(sweep),
        pruner=pruners[sweep.pruner.kind](**sweep.pruner.settings),
        load_if_exists=True,
    )


def first_trials(sweep: Sweep, count: int) -> list[dict[str, Any]]:
    """Return the parameters of the first trials, as a sweep without any results draws them."""
    study = create_study(sweep, None, "first trials")
    return [study.ask(distributions(sweep)).params for _ in range(min(count, sweep.trials))]


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """Open the journal in the sweep's folder, which is created, or a database; raise UserError if that fails."""
    try:
        (folder / TRIALS_FOLDER).mkdir(parents=True, exist_ok=True)
        if url is None:
            return JournalStorage(Journal(folder / JOURNAL_FILE))
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot be written ({error.strerror}); give another folder") from error
    except (ValueError, KeyError) as error:
        raise damaged(folder / JOURNAL_FILE, error) from error
    try:
        return _open_database(url)
    except ImportError as error:
        driver = sqlalchemy.make_url(url).drivername
        raise UserError(f"--storage: the driver of {driver} is not installed; install it with pip") from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--storage: cannot be opened ({first_line(error)}); give a URL such as mysql+pymysql://USER@HOST/DATABASE"
        ) from error


def _open_database(url: str) -> RDBStorage:
    """Open Optuna's tables in a database, or create them, which several new workers may do simultaneously."""
    attempts = 0
    while True:
        try:
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except sqlalchemy.exc.DBAPIError as error:
            attempts += 1
            exists = any(words in str(error).lower() for words in ("already exists", "unique", "duplicate"))
            if not exists or attempts > CONNECTION_ATTEMPTS:
                raise
            time.sleep(1)


def study_name(storage: BaseStorage, folder: Path) -> str:
    """Return the name of the study of a sweep, that of its folder.

    A journal lies in the folder and keeps the name of its first study when the folder is renamed or copied.
    """
    name = folder.resolve().name
    if isinstance(storage, JournalStorage):
        names = [study.study_name for study in storage.get_all_studies()]
        return name if name in names or not names else names[0]
    return name


@contextmanager
def report_storage_errors() -> Iterator[None]:
    """Turn errors of the storage inside the block into RunError with the storage's reason."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise RunError(f"the storage failed ({first_line(error)}); the same command resumes the sweep") from error
