"""Work in partitions: by the Dask workers at DASK_SCHEDULER_ADDRESS, through the store at PLUMBLINE_STORE.

Both are environment variables because they say where a run happens, not what it computes. With only a scheduler,
results come back through it; with a store too, workers write them there and only names come back; with only a store,
this machine does the work and repeats nothing that an earlier run finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from plumbline.common.errors import UserError, one_line
from plumbline.common.files import file_digest
from plumbline.common.quiet import hush
from plumbline.common.store import STORE, Arrays, DamagedError, Store, open_store

SCHEDULER = "DASK_SCHEDULER_ADDRESS"
SAY_AFTER = 30  # seconds
AHEAD = 2  # partitions in flight for each one being computed

Task = TypeVar("Task")
TaskIn = TypeVar("TaskIn", contravariant=True)
Result = TypeVar("Result")


class Work(Protocol[TaskIn]):
    """What is done to every partition. It is sent to workers, so its class must be importable, not defined in __main__.

    `kind` is its folder in the store; `alone` says that a worker does one partition at a time, however many threads it
    has. `code` is the digest of the code in the process that asks, `loaded` that of the process that computes.
    """

    kind: ClassVar[str]
    alone: ClassVar[bool]
    loaded: ClassVar[str]

    @property
    def code(self) -> str: ...

    def key(self, task: TaskIn) -> str:
        """Return a digest of all that the result depends on, as this machine sees it."""
        ...

    def compute(self, task: TaskIn) -> Arrays:
        """Return the partition's result."""
        ...


@dataclass(frozen=True)
class Stored:
    """A result in the store: its name, whether it was computed for this run, and what was wrong with it before."""

    name: str
    computed: bool
    damage: str | None


Outcome = Arrays | Stored


@dataclass(frozen=True)
class SharedFile:
    """A file that every machine reads: at the path `name`, or as the object `name` of the store."""

    name: str
    sha256: str
    store: Store | None

    @contextmanager
    def at_hand(self, what: str) -> Iterator[Path]:
        """The file as this machine sees it; UserError where it isn't the one that was shared ("the model", `what`)."""
        with tempfile.TemporaryDirectory(prefix="plumbline-shared-") as folder:
            file = Path(self.name)
            if self.store is not None:
                file = Path(folder) / file.name
                file.write_bytes(self.store.read_bytes(self.name) or b"")
            if not file.is_file() or file_digest(file) != self.sha256:
                raise UserError(
                    f"{self.store.shown + '/' if self.store else ''}{self.name} is not {what} of this run on "
                    f"{socket.gethostname()}: let workers see the same folder, or set {STORE}."
                )
            yield file


def share(file: Path, kind: str) -> SharedFile:
    """Let workers read `file`: through the store (in folder `kind`) where the environment names one, else by path."""
    store, sha256 = open_store(), file_digest(file)
    if store is None:
        return SharedFile(str(file.resolve()), sha256, None)
    # Keras knows weights by their two suffixes.
    name, data = f"{kind}/{sha256}{''.join(file.suffixes)}", file.read_bytes()
    if store.read_bytes(name) != data:
        store.write_bytes(name, data)
    return SharedFile(name, sha256, store)


def is_wanted() -> bool:
    """Whether the environment names a scheduler or a store."""
    return bool(os.environ.get(SCHEDULER) or os.environ.get(STORE))


def spread(
    work: Work[Task],
    tasks: Iterable[Task],
    locally: Callable[[Callable[[Task], Outcome], Iterable[Task]], Iterable[Outcome]],
) -> Iterator[Arrays]:
    """Yield the results of `tasks` in order, a bounded number in flight; without a scheduler `locally` maps the tasks.

    Raises UserError where scheduler, workers or store fail; stored results are not computed again.
    """
    address, store = os.environ.get(SCHEDULER), open_store()
    carry = partial(carry_out, work, store)
    outcomes = on_workers(address, carry, tasks, work.alone) if address else locally(carry, tasks)
    counts = {True: 0, False: 0}
    try:
        for outcome in outcomes:
            if not isinstance(outcome, Stored):
                yield outcome
                continue
            assert store is not None
            counts[outcome.computed] += 1
            if outcome.damage:
                print(f"{store.shown}/{outcome.name} is damaged ({outcome.damage}): computed again", file=sys.stderr)
            yield _fetch(store, outcome.name)
    finally:
        if store is not None:
            found = f"{counts[False]} found in {store.shown}"
            print(f"{work.kind}: {counts[True]} partitions computed, {found}", file=sys.stderr)


def _fetch(store: Store, name: str) -> Arrays:
    try:
        arrays = store.read(name)
    except DamagedError as error:
        raise UserError(f"{store.shown}/{name} was damaged just after it was written ({error}): run again.") from None
    if arrays is None:
        raise UserError(f"{store.shown}/{name} was there and is gone: do this machine and the workers see one store?")
    return arrays


def carry_out(work: Work[Task], store: Store | None, task: Task) -> Outcome:
    """Compute a partition, or find it in the store; runs on this machine or on a worker."""
    hush()  # a worker is nobody's command: nothing else has done so there
    if work.code != work.loaded:
        raise UserError(
            f"the Dask worker on {socket.gethostname()} has other code loaded than this run: bring its folder to the "
            "same commit and start it again."
        )
    if store is None:
        return work.compute(task)
    key = work.key(task)
    name, damage = f"{work.kind}/{key[:2]}/{key[2:]}.npz", None
    try:
        if store.read(name) is not None:
            return Stored(name, False, None)
    except DamagedError as error:
        damage = str(error)
    arrays = work.compute(task)
    if work.key(task) != key:
        raise UserError(f"the data changed on {socket.gethostname()} while it was read: run again when it is settled.")
    store.write(name, arrays)
    return Stored(name, True, damage)


def on_workers(
    address: str, function: Callable[[Task], Result], tasks: Iterable[Task], alone: bool = False
) -> Iterator[Result]:
    """Yield function(task) in the tasks' order, computed by the Dask workers of the scheduler at `address`.

    At most AHEAD times as many tasks are in flight as workers (their threads, unless `alone`) can take, so that memory
    grows with the cluster and not with the tasks. Workers that join later get work too.
    """
    import distributed

    try:
        client: Any = distributed.Client(address, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{SCHEDULER} is {address}, where no scheduler answers ({error}): start it, or unset it."
        ) from None

    def room() -> int:
        threads = client.nthreads()
        return AHEAD * max(1, len(threads) if alone else sum(threads.values()))

    with client:
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                waiting.append(client.submit(function, task, pure=False))
                while len(waiting) >= room():
                    yield _result(client, waiting.popleft(), address)
            while waiting:
                yield _result(client, waiting.popleft(), address)
        except (ModuleNotFoundError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "deserialization" not in str(error):
                raise
            raise UserError(
                f"the scheduler at {address} or one of its workers can't import what this run does: start both in the "
                f"project's folder and environment, with PYTHONPATH=. ({one_line(error)})"
            ) from None
        except distributed.KilledWorker as error:
            raise UserError(
                f"Dask workers died of one partition: see their logs, else memory ran out ({one_line(error)})"
            ) from None
        except distributed.client.FutureCancelledError as error:
            raise UserError(f"the scheduler at {address} was lost ({one_line(error)}): start it, run again.") from None


def _result(client: Any, future: Any, address: str) -> Any:
    """Wait for a result, with a message while there is no worker: the cluster may be about to grow, or dead."""
    while True:
        try:
            return future.result(timeout=SAY_AFTER)
        except TimeoutError:
            if future.done():
                raise
            if not client.nthreads():
                print(
                    f"{address} has no worker: waiting for one (workers that leave again can't import the project, or "
                    "ran out of memory: see their logs)",
                    file=sys.stderr,
                )


def digest(*parts: Any) -> str:
    """The sha256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache  # called for every partition; loaded packages don't change within a process
def versions(*packages: str) -> dict[str, str | None]:
    """The installed version of each package, None where it isn't installed."""

    def of(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: of(name) for name in packages}
