"""From files to answers: what every door (API, page, batches) has in common."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from plumbline.common.errors import UserError
from plumbline.common.files import replacing
from plumbline.common.served import CHALLENGER, CHAMPION
from plumbline.imaging.decode import DecodeError, Pixels, decode_image, picture_suffix
from serving import metrics
from serving.batching import BusyError
from serving.engine import Engine, Prepared, Unusable
from serving.model import Scored, Served
from serving.overlay import occlusion
from serving.problems import ProblemError, busy
from serving.record import Recorder, answer_row, new_id
from serving.settings import ServingParams
from serving.uploads import Upload
from serving.views import views_of

OCCLUSIONS = 64


def refused(error: BusyError) -> ProblemError:
    """Return the refusal of a request for which there is no room, and count it."""
    metrics.BUSY.inc()
    return busy(error.seconds)


class Answering:
    """Answers files for a client, and keeps what the settings say is kept."""

    def __init__(self, engine: Engine, recorder: Recorder | None) -> None:
        self.engine = engine
        self.params: ServingParams = engine.params
        self._recorder = recorder
        self._shadows: set[asyncio.Task[None]] = set()

    async def answer(
        self,
        files: Sequence[Upload],
        client: str,
        views: int = 0,
        explain: bool = False,
        patient: bool = False,
        by: tuple[str, Served] | None = None,
    ) -> dict[str, Any]:
        """Answer each file, in order; ProblemError where there is no champion, no room or no time.

        `patient` waits for room instead of being refused, for batches; `by` is the role and version that answer, by
        default those that this client gets.
        """
        role, served = by or self._who(client)
        cost = len(files) * (max(1, views) + (OCCLUSIONS if explain else 0))
        seconds = self.params.limits.batch_seconds if patient else self.params.limits.answer_seconds
        try:
            async with asyncio.timeout(seconds):
                while patient and self.engine.batcher.inside + cost > self.params.queue and self.engine.batcher.inside:
                    await asyncio.sleep(0.01)
                with self.engine.batcher.admitted(cost):
                    answers = await self._answers(served, role, files, client, views, explain)
        except BusyError as error:
            raise refused(error) from None
        except TimeoutError:
            raise ProblemError(503, f"No answer within {seconds:g} s: try again.", {"Retry-After": "5"}) from None
        return {"model": {"version": served.version, "role": role}, "version": served.version, "answers": answers}

    def check_room(self) -> None:
        """Raise ProblemError where not one picture more has room; asked before a body is read, it costs little."""
        try:
            self.engine.batcher.check(1)
        except BusyError as error:
            raise refused(error) from None

    def _who(self, client: str) -> tuple[str, Served]:
        role = self.engine.role_of(client)
        return role, self.engine.wanted(role)

    async def _answers(
        self, served: Served, role: str, files: Sequence[Upload], client: str, views: int, explain: bool
    ) -> list[dict[str, Any]]:
        prepared = await self.engine.prepare(served, files)
        good = [one for one in prepared if isinstance(one, Prepared)]
        scored = iter(await self.engine.score(served, [one.pixels for one in good]))
        answers = []
        for file, one in zip(files, prepared, strict=True):
            if isinstance(one, Unusable):
                metrics.REFUSED.inc()
                answers.append({"file": one.name, "refused": one.reason, "status": one.status})
                continue
            found, cached = next(scored)
            identity = new_id()
            answer = {"id": identity, "file": one.name, **served.answer(found, self.params.unsure), "cached": cached}
            metrics.PICTURES.labels(str(served.version), role, ";".join(answer["labels"])).inc()
            if answer["unsure"]:
                metrics.UNSURE.labels(str(served.version)).inc()
            if views:
                answer["views"] = await self._views(served, one.pixels, views)
            if explain:
                answer["overlay"] = await occlusion(self.engine, served, one.pixels, found)
            answers.append(answer)
            await self._keep(identity, role, served, client, file, one, found, answer)
        return answers

    async def _views(self, served: Served, pixels: Pixels, count: int) -> dict[str, Any]:
        """How much the answer moves when the picture does: test-time augmentation."""
        scored = await self.engine.batcher.score(served, views_of(pixels, count))
        given = served.calibrated(np.stack([one.probabilities for one in scored]))
        labels = served.task.predicted(given)
        return {
            "count": count,
            "mean": dict(zip(served.classes, given.mean(axis=0).tolist(), strict=True)),
            "spread": dict(zip(served.classes, given.std(axis=0).tolist(), strict=True)),
            "agree": float((labels == labels[0]).all(axis=1).mean()),
        }

    async def _keep(
        self,
        identity: str,
        role: str,
        served: Served,
        client: str,
        file: Upload,
        one: Prepared,
        found: Scored,
        answer: dict[str, Any],
    ) -> None:
        if self._recorder is None or self.params.record == "none":
            return
        pixels = hashlib.sha256(one.pixels.data).hexdigest()
        seen = None
        if self.params.record in ("descriptors", "pictures") and role == CHAMPION:
            loop = asyncio.get_running_loop()
            seen = await loop.run_in_executor(None, _seen, identity, file.content, found, self.params)
        self._recorder.keep(answer_row(identity, role, served.version, served.digest, client, pixels, answer, seen))
        challenger = self.engine.challenger
        if self.params.challenger.mode == "shadow" and challenger is not None:
            task = asyncio.get_running_loop().create_task(self._shadow(challenger, identity, client, pixels, file))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)

    async def _shadow(self, served: Served, identity: str, client: str, pixels: str, file: Upload) -> None:
        """Have the challenger score the same file, when there is room; nobody waits for it."""
        batcher = self.engine.batcher
        if batcher.inside * 2 > batcher.room:
            metrics.SHADOWS.labels("left out").inc()
            return
        try:
            with batcher.admitted(1):
                prepared = (await self.engine.prepare(served, [file]))[0]
                if isinstance(prepared, Unusable) or self._recorder is None:
                    return
                found, _ = (await self.engine.score(served, [prepared.pixels]))[0]
        except BusyError:
            metrics.SHADOWS.labels("left out").inc()
            return
        answer = served.answer(found, self.params.unsure)
        self._recorder.keep(answer_row(identity, CHALLENGER, served.version, served.digest, client, pixels, answer))
        metrics.SHADOWS.labels("scored").inc()


def _seen(identity: str, content: bytes, found: Scored, params: ServingParams) -> tuple[Any, ...] | None:
    """What monitoring wants to know of a picture, measured as a site's files are; keep the file, if wanted."""
    from plumbline.imaging.describe import describe_camera
    from plumbline.imaging.measures import measures_of
    from plumbline.imaging.small import small_grey

    digest = hashlib.sha256(content).hexdigest()
    try:
        image = decode_image(content, params.limits.pixels)
        measured = measures_of(identity, digest, len(content), str(image.info["format"]), image, 1)
        suffix = picture_suffix(content)
    except DecodeError:
        return None
    if params.record == "pictures":  # monitoring measures and scores it as it does whatever a site sends
        try:
            _keep_picture(params, identity + suffix, content)
        except (UserError, OSError):  # a full disk: answers go on, and the loss is counted
            metrics.LOST.inc()
        return None
    row = {**measured.row, **describe_camera(measured.rgb, np.asarray(measured.grey))}
    row["phash"] = str(row["phash"])  # 64 bits are more than JSON's numbers hold
    return (
        identity,
        json.dumps({**row, "path": identity + suffix}),
        found.embedding.astype("<f4").tobytes(),
        small_grey(measured.grey).tobytes(),
    )


def _keep_picture(params: ServingParams, name: str, content: bytes) -> None:
    """Put a picture where `drift.source` finds a site's: its name is ours, nothing of it is the client's."""
    folder = params.pictures / params.site
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / name) as temporary:
        temporary.write_bytes(content)
