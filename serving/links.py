"""Pictures behind URLs: only of hosts on the allow-list, only at addresses that a stranger may reach.

A name is resolved once, its addresses are checked, and the connection goes to the very address that was checked: a
second answer of the DNS changes nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from serving.problems import ProblemError
from serving.settings import ServingParams
from serving.uploads import LONGEST_NAME, Upload

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
CONNECT = 5.0
AT_ONCE = 4
PORTS = {"http": 80, "https": 443}


class RefusedError(Exception):
    """Why nothing is fetched."""


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to an address that was checked, never to a name."""

    def __init__(self, allowed: Iterable[Network]) -> None:
        self._allowed = tuple(allowed)
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first."""
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), timeout or CONNECT)
        except (OSError, UnicodeError, TimeoutError):
            raise RefusedError("has a host that can't be resolved") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(self._may(address) for address in addresses):
            raise RefusedError("leads to an address inside, which is not fetched")
        return await self._backend.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    def _may(self, text: str) -> bool:
        address = ipaddress.ip_address(text.split("%")[0])
        inner = _inner(address)
        if any(inner in network for network in self._allowed if network.version == inner.version):
            return True
        return bool(address.is_global and inner.is_global and not inner.is_multicast)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise RefusedError("is no address on the network")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Fetcher:
    """Fetches pictures from the hosts that the settings name."""

    def __init__(self, params: ServingParams) -> None:
        self._params = params
        self._networks = [ipaddress.ip_network(text) for text in params.url_networks]
        self._some = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str) -> Upload:
        """Return what lies at `url`, or why it was not fetched."""
        name = url[:LONGEST_NAME]
        try:
            self._check(url)
            async with self._some, asyncio.timeout(self._params.limits.upload_seconds):
                return Upload(name, await self._get(url))
        except RefusedError as error:
            return Upload(name, refused=str(error))
        except TimeoutError:
            return Upload(name, refused="did not come in time")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError):
            return Upload(name, refused="can't be fetched")

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise RefusedError("is no URL") from None
        if parts.scheme not in PORTS:
            raise RefusedError("is neither http nor https")
        if parts.username or parts.password:
            raise RefusedError("carries a password")
        if host.rstrip(".").lower() not in self._params.url_hosts:
            raise RefusedError("has a host that is not on serving.url_hosts")
        if port not in (None, PORTS[parts.scheme]) and not self._networks:
            raise RefusedError("has a port that is not fetched from")

    async def _get(self, url: str) -> bytes:
        backend = CheckedBackend(self._networks)
        most = self._params.limits.picture_bytes
        timeouts = {"connect": CONNECT, "read": CONNECT, "write": CONNECT, "pool": CONNECT}
        async with (
            httpcore.AsyncConnectionPool(network_backend=backend, max_connections=1) as pool,
            pool.stream("GET", url, headers={"Accept": "image/*"}, extensions={"timeout": timeouts}) as response,
        ):
            if response.status != 200:
                moved = " (redirects are not followed)" if 300 <= response.status < 400 else ""
                raise RefusedError(f"was answered with status {response.status}{moved}")
            parts, size = [], 0
            async for part in response.aiter_stream():
                size += len(part)
                if size > most:
                    raise RefusedError(f"has more than the {most:,} bytes allowed")
                parts.append(part)
            return b"".join(parts)


def checked_urls(content: Any, params: ServingParams) -> list[str]:
    """Return the list of URLs that a client sent as {"urls": [...]}; ProblemError where it is none."""
    urls = content.get("urls") if isinstance(content, dict) else None
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise ProblemError(422, 'Send {"urls": ["https://HOST/PICTURE.jpg", ...]}.')
    if len(urls) > params.limits.batch_pictures:
        raise ProblemError(413, f"The list has more than {params.limits.batch_pictures:,} URLs: send several.")
    if not params.url_hosts:
        raise ProblemError(403, "No URL is fetched here: serving.url_hosts in params.yaml names no host.")
    return urls
