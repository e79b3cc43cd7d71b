"""Who takes a new identity when two engines have the same one."""

import shutil
from pathlib import Path

from mountd.identity import Identity


def test_it_stays_and_a_copy_gives_way(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    secret = Identity(state).secret
    assert Identity(state).secret == secret
    shutil.copytree(state, tmp_path / "copy")
    copied = Identity(tmp_path / "copy")
    assert copied.secret == secret
    assert Identity(state).met(we_dialled=True) is None
    assert Identity(state).met(we_dialled=False) is None
    assert copied.met(we_dialled=True) == copied.secret != secret
    again = Identity(tmp_path / "copy")
    assert (again.secret, again.met(we_dialled=True)) == (copied.secret, None)


def test_where_neither_knows_who_is_dialled_twice_gives_way(tmp_path: Path) -> None:
    identity = Identity(tmp_path)
    secret = identity.secret
    assert [identity.met(we_dialled=True) for _ in range(3)] == [None] * 3
    assert identity.met(we_dialled=False) is None
    assert identity.met(we_dialled=False) == identity.secret == Identity(tmp_path).secret != secret
    (tmp_path / "identity").unlink()
    assert Identity(tmp_path).secret != identity.secret
