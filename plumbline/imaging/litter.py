"""Files that operating systems, cameras and network drives leave among pictures."""

from __future__ import annotations

_NAMES = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info"),
    *("__macosx", "network trash folder", "temporary items"),
    *("$recycle.bin", "recycler", "recycled", "system volume information", "lost+found", "found.000"),
    *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
    *("__pycache__", "_desktop.ini"),
}
_ENDINGS = ("@synoeastream", "@synoresource", ".crdownload", ".part", ".partial")


def is_litter(name: str) -> bool:
    """Return whether a file or folder of this name belongs to a system: hidden, a thumbnail cache, a recycle bin."""
    lower = name.lower()
    return name.startswith((".", "~$")) or lower in _NAMES or lower.endswith(_ENDINGS)
