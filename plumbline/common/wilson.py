"""Wilson's interval of an observed share."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson(rate: float, number: float, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval for `rate` observed on `number` independent trials (a real number is allowed).

    E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if number <= 0:
        return 0.0, 1.0
    centre = rate + z * z / (2 * number)
    spread = z * math.sqrt(rate * (1 - rate) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    # At rates of 0 and 1 an end is exactly 0 or 1, which rounding would miss.
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return max(0.0, low) if rate else 0.0, min(1.0, high) if rate < 1 else 1.0
