"""The user who runs this: in containers and on clusters a user id may have neither name nor home."""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
from pathlib import Path


def user_name() -> str:
    """The name of this user, or `uid-N` where the system knows none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # which of them depends on Python's version
        return f"uid-{os.getuid()}"


def name_this_user() -> None:
    """Give this process and its children a name and a home where the system knows none for the user id.

    MLflow, DVC, Prefect and Evidently ask for both and end with a traceback where they are missing.
    """
    if not hasattr(os, "getuid"):
        return
    name = user_name()
    if name == f"uid-{os.getuid()}":
        os.environ["LOGNAME"] = os.environ["USER"] = name
    try:
        Path.home()
    except (RuntimeError, KeyError):
        home = Path(tempfile.gettempdir()) / f"plumbline-home-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        if home.is_symlink() or home.stat().st_uid != os.getuid():
            home = Path(tempfile.mkdtemp(prefix="plumbline-home-"))  # another user took the name
        os.environ["HOME"] = str(home)
        print(f"this user has no home folder: {home} is used for caches (set HOME to another)", file=sys.stderr)
