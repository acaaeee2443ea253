from pathlib import Path

import pytest

from latency.user_cache import user_cache


@pytest.mark.parametrize(
    ("platform", "environ", "below"),
    [("linux", {}, ".cache"), ("darwin", {}, "Library/Caches"), ("win32", {"LOCALAPPDATA": "/local"}, "/local"), ("win32", {}, ".cache")],
)
def test_cache_lies_where_the_system_keeps_its_own(platform: str, environ: dict[str, str], below: str) -> None:
    assert user_cache(environ, platform) == Path.home() / below / "hardware-aware-nas"


def test_chosen_folder_wins_over_the_systems() -> None:
    environ = {"NAS_CACHE": "/mine", "XDG_CACHE_HOME": "/xdg"}
    assert user_cache(environ, "linux") == Path("/mine")
