"""params.yaml, section `serving`."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from plumbline.common.errors import LOOPBACK
from plumbline.common.parallel import cores
from plumbline.common.params import Section
from plumbline.common.served import KNOWN_SHARE
from plumbline.imaging.decode import LARGEST_LIMIT
from plumbline.registry.versions import MODEL


class Limits(Section):
    """What one request may ask for; more is refused before it costs anything."""

    picture_bytes: int = Field(default=20_000_000, ge=1)
    request_bytes: int = Field(default=100_000_000, ge=1)
    pixels: int = Field(default=50_000_000, ge=1, le=LARGEST_LIMIT)
    pictures: int = Field(default=64, ge=1)  # of one /v1/predict
    batch_pictures: int = Field(default=1000, ge=1)  # of one /v1/batch
    unpacked_bytes: int = Field(default=1_000_000_000, ge=1)  # of all that a zip holds
    upload_seconds: float = Field(default=30, gt=0)
    answer_seconds: float = Field(default=30, gt=0)
    batch_seconds: float = Field(default=600, gt=0)
    views: int = Field(default=16, ge=2, le=64)  # of a picture, with ?views=


class Unsure(Section):
    """When the service says that it does not know."""

    confidence: float = Field(default=0.7, ge=0, lt=1)  # calibrated; below it
    known_share: float = Field(default=KNOWN_SHARE, gt=0, le=1)  # of the reference counts as near


class Challenger(Section):
    """What the alias `challenger` does: nothing, answer for a share of the clients, or score everything silently."""

    mode: Literal["off", "share", "shadow"] = "off"
    share: float = Field(default=0.1, ge=0, le=1)


def _hosts(names: list[str]) -> list[str]:
    for name in names:
        if "/" in name or ":" in name or name != name.strip().lower() or not name:
            raise ValueError(f"{name!r} is no plain lower-case host name, such as pictures.example.com")
    return names


def _networks(texts: list[str]) -> list[str]:
    for text in texts:
        ip_network(text)  # its ValueError says what is wrong
    return texts


class ServingParams(Section):
    """How the champion is served."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    workers: int = Field(default=0, ge=0)  # processes; 0: one a core
    threads: int = Field(default=1, ge=1)  # of one process's network
    state: Path = Path("served")
    poll_seconds: float = Field(default=1.0, gt=0)
    keep_versions: int = Field(default=3, ge=1)
    batch: int = Field(default=8, ge=1)  # more are no quicker a picture on one thread
    queue: int = Field(default=256, ge=1)
    cache: int = Field(default=4096, ge=0)
    keys: Path | None = None
    open: bool = False
    cors: list[str] = Field(default=[])
    url_hosts: Annotated[list[str], AfterValidator(_hosts)] = Field(default=[])
    url_networks: Annotated[list[str], AfterValidator(_networks)] = Field(
        default=[]
    )  # such as 10.1.0.0/16: these addresses may be private
    record: Literal["none", "scores", "descriptors", "pictures"] = "scores"
    site: str = "served"
    pictures: Path = Path("incoming")  # with record: pictures, they are kept in the folder `site` of it
    limits: Limits = Limits()
    unsure: Unsure = Unsure()
    challenger: Challenger = Challenger()

    @property
    def processes(self) -> int:
        """How many workers there are."""
        return self.workers or cores()

    @property
    def only_here(self) -> bool:
        """Whether only this machine can reach the service."""
        return self.host in LOOPBACK


class Promoted(Section):
    """What serving reads of the section `promote`: the name of the registered model."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str = MODEL
