"""How much room trials need on the disk before they begin."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from service.disk import Disk
from service.settings import Settings


def disk(least: str, *, free: int, total: int = 10**12) -> Disk:
    """A disk that is as full as said."""
    return Disk(Path("/there"), least, lambda _: SimpleNamespace(free=free, total=total))


@pytest.mark.parametrize(
    ("least", "needed"),
    [("0", 0), ("1500", 1500), ("2 kB", 2000), ("1.5GB", 15 * 10**8), ("2TB", 2 * 10**12), ("2.5%", 25 * 10**9)],
)
def test_room_is_an_amount_or_a_share(least: str, needed: int) -> None:
    """Just enough is enough, and a byte less is not."""
    assert disk(least, free=0).needed == needed
    assert disk(least, free=needed).shortage == ""
    assert bool(disk(least, free=needed - 1).shortage) or needed == 0


def test_a_shortage_says_how_much_is_free_and_needed_and_where() -> None:
    """In people's numbers, with the setting's name."""
    rule = "(SWEEPSERVE_MIN_FREE_DISK=2%)"
    assert disk("2%", free=1_234_000_000).shortage == (
        f"no trial begins: 1.23 GB are free in /there, need 20 GB {rule}"
    )
    assert disk("2%", free=12).shortage.startswith("no trial begins: 12 bytes are free")


@pytest.mark.parametrize("least", ["", "much", "-1", "101%", "1 GiB", "5 %%", "GB", "\u0665GB"])
def test_what_is_no_amount_is_refused(least: str) -> None:
    """With examples of what is."""
    with pytest.raises(ValueError, match="need an amount of disk space such as 5GB, or a share such as 2%, got"):
        disk(least, free=1)


def test_the_setting_is_checked_when_it_is_read() -> None:
    """And names its variable; the disk is that of the checkpoints, also before there are any."""
    with pytest.raises(ValueError, match="SWEEPSERVE_MIN_FREE_DISK: need an amount of disk space"):
        Settings.from_environment({"SWEEPSERVE_MIN_FREE_DISK": "plenty"})
    settings = Settings.from_environment({"SWEEPSERVE_MIN_FREE_DISK": "100%", "SWEEPSERVE_HOME": "/nowhere/yet"})
    assert 0 < settings.disk.free < settings.disk.needed == settings.data_reserve
    assert "are free in /nowhere/yet/sweeps, need" in settings.disk.shortage
