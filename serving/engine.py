"""One worker's models and how its answers come about: the cache, the queue, the challenger beside the champion."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from plumbline.common.errors import UserError
from plumbline.common.served import CHALLENGER, CHAMPION
from plumbline.imaging.decode import DecodeError, Pixels
from serving import metrics
from serving.batching import Batcher
from serving.model import Scored, Served, open_version
from serving.problems import ProblemError, no_champion
from serving.settings import ServingParams
from serving.shelf import Role, Shelf
from serving.uploads import Upload

log = logging.getLogger("serving")
WATCH_SECONDS = 0.25
AGAIN_SECONDS = 2.0  # after a version that could not be opened: the keeper may have put it right


@dataclass(frozen=True)
class Prepared:
    """A picture as the network takes it."""

    name: str
    pixels: Pixels


@dataclass(frozen=True)
class Unusable:
    """A file that gets no answer, and why."""

    name: str
    reason: str
    status: int = 422


class Cache:
    """What was said of which pixels by which version, the newest `most` of it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, bytes], Scored] = OrderedDict()

    def get(self, key: tuple[str, bytes]) -> Scored | None:
        """Return what is known."""
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def put(self, key: tuple[str, bytes], scored: Scored) -> None:
        """Keep it."""
        if not self._most:
            return
        self._known[key] = scored
        while len(self._known) > self._most:
            self._known.popitem(last=False)


class Engine:
    """What one worker knows and does."""

    def __init__(self, params: ServingParams, shelf: Shelf) -> None:
        self.params = params
        self.shelf = shelf
        self.batcher: Batcher[Scored] = Batcher(params.batch, params.queue)
        self.cache = Cache(params.cache)
        self.trouble: str | None = None
        self._served: dict[str, Served] = {}
        self._stamp: tuple[int, int] | None = None
        self._again = 0.0
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        # With several threads the network's own would be as modest as the one that opens it.
        self._versions = ThreadPoolExecutor(1, "versions", initializer=_modest if params.threads == 1 else None)

    # ------------------------------------------------------------------------------------------------- versions

    @property
    def champion(self) -> Served | None:
        """The version that answers, None where there is none yet."""
        return self._served.get(CHAMPION)

    @property
    def version(self) -> int | None:
        """The champion's number."""
        return self.champion.version if self.champion else None

    def wanted(self, role: str = CHAMPION) -> Served:
        """Return the version in a role, the champion where nobody has it; ProblemError where there is none at all."""
        served = self._served.get(role) or self.champion
        if served is None:
            raise no_champion()
        return served

    @property
    def challenger(self) -> Served | None:
        """The challenger, where one is there and not the champion itself."""
        served = self._served.get(CHALLENGER)
        return served if served and self.champion and served.digest != self.champion.digest else None

    def role_of(self, client: str) -> str:
        """Return who answers a client: always the same, as long as the share and the challenger stay the same."""
        settings = self.params.challenger
        if settings.mode != "share" or self.challenger is None:
            return CHAMPION
        place = int.from_bytes(hashlib.sha256(f"{self.challenger.digest} {client}".encode()).digest()[:8], "big")
        return CHALLENGER if place / 2**64 < settings.share else CHAMPION

    def look(self) -> None:
        """Take up what roles.json says, if it changed: opened and warmed here, put in place in one step.

        Requests that are under way keep the version that they began with. A version that can't be opened changes
        nothing; `trouble` says so.
        """
        try:
            stat = self.shelf.roles_file.stat()
        except OSError:
            return
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp == self._stamp and (not self.trouble or time.monotonic() < self._again):
            return
        self._stamp, self._again = stamp, time.monotonic() + AGAIN_SECONDS
        try:
            roles, trouble = self.shelf.roles(), None
        except UserError as error:
            self.trouble = str(error)
            log.error("%s", error)
            return
        for name, role in ((CHAMPION, roles.champion), (CHALLENGER, roles.challenger)):
            try:
                self._take_up(name, role)
            except UserError as error:
                trouble = str(error)
                log.error("%s", error)
        self.trouble = trouble

    def _take_up(self, name: str, role: Role | None) -> None:
        old = self._served.get(name)
        if role is None:
            if name == CHALLENGER:
                self._served.pop(name, None)
            return  # a champion that is gone in the registry is served until another comes
        if old is not None and (old.digest, old.version) == (role.digest, role.version):
            return
        known = next((one for one in self._served.values() if one.digest == role.digest), None)
        if known is not None and known.version == role.version:
            new = known
        else:
            folder = self.shelf.folder(role.digest)
            params = self.params
            new = open_version(folder, role.version, role.digest, params.threads, params.batch, params.unsure)
        self._served[name] = new
        if name == CHAMPION:
            metrics.VERSION.set(new.version)
            metrics.SWAPS.inc()
            log.info("version %s is champion", new.version)

    async def follow(self) -> None:
        """Look for another champion again and again, in a thread beside the one that scores."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await asyncio.get_running_loop().run_in_executor(self._versions, self.look)
            metrics.INSIDE.set(self.batcher.inside)
            sizes, self.batcher.sizes = self.batcher.sizes, []
            for size in sizes:
                metrics.BATCH.observe(size)

    # -------------------------------------------------------------------------------------------------- answers

    async def prepare(self, served: Served, files: Sequence[Upload]) -> list[Prepared | Unusable]:
        """Decode files, in order, a few at a time."""
        loop = asyncio.get_running_loop()
        tasks = [loop.run_in_executor(self._decoders, self._prepare, served, file) for file in files]
        return list(await asyncio.gather(*tasks))

    def _prepare(self, served: Served, file: Upload) -> Prepared | Unusable:
        if file.refused:
            return Unusable(file.name, file.refused, file.status)
        try:
            return Prepared(file.name, served.prepare(file.content, self.params.limits.pixels))
        except DecodeError as error:
            return Unusable(file.name, _ours(error.reason))
        except MemoryError:
            return Unusable(file.name, "needs more memory than there is", 413)

    async def score(self, served: Served, pictures: Sequence[Pixels]) -> list[tuple[Scored, bool]]:
        """Return what a version says of each picture, and whether it was known already."""
        keys = [(served.digest, hashlib.sha256(pixels.data).digest()) for pixels in pictures]
        known = [self.cache.get(key) for key in keys]
        fresh = [place for place, found in enumerate(known) if found is None]
        results = await self.batcher.score(served, [pictures[place] for place in fresh]) if fresh else []
        answers = [(found, True) for found in known]
        for place, scored in zip(fresh, results, strict=True):
            self.cache.put(keys[place], scored)
            answers[place] = (scored, False)
        metrics.CACHED.inc(len(pictures) - len(fresh))
        return [(scored, cached) for scored, cached in answers if scored is not None]

    async def answer_itself(self) -> int:
        """Score a picture as a client's is, past the cache; return the version that did. For /readyz."""
        served = self.wanted()
        random = np.random.default_rng()
        picture = random.integers(0, 256, (served.image_size, served.image_size, 3), np.uint8)
        scored = (await self.batcher.score(served, [picture]))[0]
        if not np.isfinite(scored.probabilities).all():
            raise ProblemError(503, "The champion's answer is no number.")
        return served.version

    def status(self) -> dict[str, Any]:
        """Return what this worker serves, for those who ask whether it is well."""
        return {"version": self.version, "challenger": self.challenger.version if self.challenger else None} | (
            {"trouble": self.trouble} if self.trouble else {}
        )

    def close(self) -> None:
        """Let the threads go."""
        self.batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._versions.shutdown(wait=False, cancel_futures=True)


def _ours(reason: str) -> str:
    """A reason in words that fit a service: data.max_pixels is a setting of the data."""
    return reason.replace(" (data.max_pixels)", "")


def _modest() -> None:
    """Give this thread, which opens versions, a low priority: scoring comes first. Only Linux can do so by thread."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
