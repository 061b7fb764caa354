"""A user id without a name or home, as in a container, gets both before a library asks for them."""

import getpass
import os
from pathlib import Path

import pytest

from plumbline.common.users import name_this_user, user_name


def nobody(*_):
    raise KeyError("getpwuid(): uid not found")


@pytest.fixture
def nameless(monkeypatch, tmp_path):
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, "to be replaced")
    return tmp_path


def test_a_named_user_keeps_the_name(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "kim")
    monkeypatch.setenv("USER", "kim")
    name_this_user()
    assert (user_name(), os.environ["USER"]) == ("kim", "kim")


def test_a_nameless_user_is_called_by_number(nameless):
    assert user_name() == f"uid-{os.getuid()}"
    name_this_user()
    assert os.environ["LOGNAME"] == os.environ["USER"] == f"uid-{os.getuid()}"


def test_a_user_without_a_home_gets_a_private_one_and_is_told_so(nameless, monkeypatch, capsys):
    def no_home(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(no_home))
    monkeypatch.setenv("HOME", "to be replaced")
    name_this_user()
    home = Path(os.environ["HOME"])
    assert (home.parent, home.stat().st_mode & 0o777) == (nameless, 0o700)
    assert f"this user has no home folder: {home}" in capsys.readouterr().err


def test_a_home_that_somebody_else_prepared_is_not_used(nameless, monkeypatch, tmp_path):
    def no_home(cls):
        raise RuntimeError("Could not determine home directory.")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"plumbline-home-{os.getuid()}").symlink_to(elsewhere)
    monkeypatch.setattr(Path, "home", classmethod(no_home))
    monkeypatch.setenv("HOME", "to be replaced")
    name_this_user()
    assert Path(os.environ["HOME"]).resolve() != elsewhere
    assert not Path(os.environ["HOME"]).is_symlink()
