"""What the service answered, taken in as a site's images: descriptors, scores and embeddings, without the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monitoring.copies import status_of
from monitoring.site_state import MeasuredImages, SiteState
from plumbline.common.params import load_section
from plumbline.common.served import ServedAs, mark_collected, uncollected

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 512
KNOWN_BY = ("id", "pixels_sha256", "phash")


def served_record(site: str) -> Path | None:
    """Return the record of what was served as `site`, None where nothing is."""
    served = load_section("serving", ServedAs, optional=True)
    return served.record if served.site == site and served.record.is_file() else None


def take_served(
    store: SiteState, record: Path, seen: pd.DataFrame, training: pd.DataFrame, champion: str, distance: int
) -> int:
    """Add what was answered since the last look to the site's pending images; return how many came.

    Answers of another version than `champion` (its digest) are passed over: without the picture they can't be scored
    anew. A kill between the two steps brings pictures again, which then count as delivered again.
    """
    import pandas as pd

    taken = 0
    while (found := uncollected(record, CHUNK)).ids:
        ours = [place for place, digest in enumerate(found.digests) if digest == champion]
        if ours:
            table = _table([found.rows[place] for place in ours], champion)
            waiting = store.pending()
            known = [seen] + ([waiting.table] if waiting is not None else [])
            earlier = pd.concat([one[list(KNOWN_BY)] for one in known], ignore_index=True).dropna()
            status = status_of(table, training, earlier, set(earlier["id"]), distance)
            arrays: dict[str, NDArray[Any]] = {
                "embeddings": np.stack([found.embeddings[place] for place in ours]),
                "probabilities": found.probabilities[ours],
                "small": found.small[ours],
            }
            store.add_pending(MeasuredImages(table.assign(status=status), arrays))
            taken += len(ours)
        mark_collected(record, found.ids)
    return taken


def _table(rows: list[dict[str, Any]], champion: str) -> pd.DataFrame:
    """The rows in the columns of a site's measured files, without a stamp."""
    import pandas as pd

    table = pd.DataFrame(rows)
    table = table.assign(phash=[int(value) for value in table["phash"]], stamp="", listed=table["bytes"])
    key = table["path"] + "|" + table["id"] + "|" + champion
    return table.astype({"phash": "uint64"}).assign(key=key, scored_by=champion)
