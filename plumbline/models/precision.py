"""Which number format a frozen backbone runs in on this processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from plumbline.models.networks import Network

Precision = Literal["float32", "mixed_bfloat16"]
BFLOAT16_UNITS = frozenset({"amx_bf16", "avx512_bf16"})


def choose_precision(requested: Literal["auto"] | Precision, network: Network, flags: frozenset[str]) -> Precision:
    """Return the format; `auto` is bfloat16 where the processor has units for it and the network gains from it."""
    if requested != "auto":
        return requested
    return "mixed_bfloat16" if network.bfloat16 and flags & BFLOAT16_UNITS else "float32"


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's feature flags on Linux; empty elsewhere, which means float32."""
    if not cpuinfo.is_file():
        return frozenset()
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    return frozenset(next(lines, "flags :").split(":", 1)[1].split())


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build layers under Keras' dtype policy `policy`."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
