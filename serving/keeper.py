"""Follows the registry: what the aliases name is brought onto the shelf, and the workers take it up from there."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from plumbline.common.errors import UserError, sentence_of
from plumbline.common.served import CHALLENGER, CHAMPION
from plumbline.registry.glance import Glimpse, glance
from plumbline.registry.versions import RegistryDownError
from serving.settings import ServingParams
from serving.shelf import Role, Roles, Shelf

AGAIN_SECONDS = 30.0  # between two tries to fetch what could not be fetched
CHECK_SECONDS = 30.0  # after which the files on the shelf are read again: a disk may lose what it held
MODEST = 15


class Keeper:
    """What the registry says, and what is wrong with it."""

    def __init__(self, params: ServingParams, model: str, uri: str) -> None:
        self._params, self._model, self._uri = params, model, uri
        self.shelf = Shelf(params.state)
        self.roles, self._damaged = Roles(), ""
        try:
            self.roles = self.shelf.roles()
        except UserError as error:
            self._damaged = str(error)
        self.trouble: str | None = self._damaged or None
        self._asked: datetime | None = None
        self._failed: dict[str, float] = {}
        self._checked: dict[str, float] = {}

    def status(self) -> dict[str, Any]:
        """Return what is to be told of the registry."""
        said: dict[str, Any] = {"asked": self._asked.isoformat(timespec="seconds") if self._asked else None}
        if self.trouble and self.roles.champion:
            kept = f" Version {self.roles.champion.version}, the last good champion, goes on."
            return said | {"trouble": self.trouble + kept}
        return said | ({"trouble": self.trouble} if self.trouble else {})

    async def follow(self) -> None:
        """Ask again and again."""
        while True:
            try:
                await self.look()
            except Exception as error:  # the service goes on with what it has, and says so
                self.trouble = (
                    sentence_of(error) or f"The registry can't be followed ({type(error).__name__}: {error})."
                )
            await asyncio.sleep(self._params.poll_seconds)

    async def look(self) -> None:
        """Ask once, and bring what is new; what fails is `trouble`, and changes nothing."""
        loop = asyncio.get_running_loop()
        seen: dict[str, Glimpse | None] = {}
        trouble: str | None = None
        for alias in (CHAMPION, CHALLENGER) if self._params.challenger.mode != "off" else (CHAMPION,):
            try:
                seen[alias] = await loop.run_in_executor(None, glance, self._uri, self._model, alias)
                self._asked = datetime.now(UTC)
            except RegistryDownError as error:
                self.trouble = f"{self._damaged} {error}".lstrip()
                return
            except UserError as error:
                trouble = str(error)
        roles = self.roles.model_dump()
        if self._params.challenger.mode == "off":
            roles[CHALLENGER] = None
        for alias, found in seen.items():
            if found is None:
                roles[alias] = roles[CHAMPION] if alias == CHAMPION else None
                if alias == CHAMPION:
                    trouble = trouble or f"The registry has no alias '{CHAMPION}': promote a model (`dvc repro`)."
                continue
            problem = await self._bring(found)
            if problem is None:
                roles[alias] = {"version": found.version, "digest": found.digest}
            trouble = trouble or problem
        self.trouble = trouble
        new = Roles.model_validate(roles)
        if new != self.roles:
            self.shelf.write_roles(new)
            self.roles, self._damaged = new, ""
            self._prune(new)

    async def _bring(self, found: Glimpse) -> str | None:
        """See that a version is on the shelf; return why it can't be, None where it is."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._checked.get(found.digest, -CHECK_SECONDS) < CHECK_SECONDS:
            return None
        if await loop.run_in_executor(None, self.shelf.holds, found.digest):
            self.shelf.touch(found.digest)
            self._checked[found.digest] = loop.time()
            return None
        wait = self._failed.get(found.digest, 0.0) - loop.time()
        if wait > 0 and self.trouble:
            return self.trouble
        problem = await self._fetch(found)
        if problem is not None:
            self._failed[found.digest] = loop.time() + AGAIN_SECONDS
        return problem

    async def _fetch(self, found: Glimpse) -> str | None:
        wanted = json.dumps(
            {
                "uri": self._uri,
                "model": self._model,
                "version": found.version,
                "digest": found.digest,
                "folder": str(found.folder or ""),
                "root": str(self._params.state),
            }
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "serving.fetch",
            wanted,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=lambda: os.nice(MODEST),
        )
        output, _ = await process.communicate()
        if process.returncode == 0:
            return None
        said = output.decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"Version {found.version} can't be fetched: the reason is in the server's log."

    def _prune(self, roles: Roles) -> None:
        keep = {role.digest for role in (roles.champion, roles.challenger) if isinstance(role, Role)}
        self.shelf.prune(keep, self._params.keep_versions)
