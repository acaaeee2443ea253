from pathlib import Path

import msgspec
import pytest

from nas.errors import RunConflict
from nas.refinement.record import check_settings, is_finished
from nas.refinement.settings import Refinement

PLAIN = Refinement(seed_id="0123456789ab", origin="made up", target_ratio=0.5)
SEARCHING = msgspec.structs.replace(PLAIN, search=4, search_in="mnasnet")


def finished(folder: Path, settings: Refinement) -> Path:
    """A folder that looks like a finished refinement."""
    (folder / "refine.json").write_bytes(msgspec.json.encode(settings))
    (folder / "candidates.jsonl").touch()
    (folder / "path.csv").touch()
    return folder


def test_finished_refinement_is_finished_no_longer_where_a_search_is_asked_for(tmp_path: Path) -> None:
    out = finished(tmp_path, PLAIN)
    check_settings(out, SEARCHING)
    assert is_finished(out, PLAIN)
    assert not is_finished(out, SEARCHING)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"search": 3}, "search is 4 there, 3 here"),
        ({"search_in": ""}, "search_in is mnasnet there,  here"),
        ({"target_ratio": 0.4}, "target_ratio is 0.5 there, 0.4 here"),
        ({"passing": (0.7,)}, "passing is () there, (0.7,) here"),
    ],
)
def test_what_fixes_a_refinement_cannot_change(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    out = finished(tmp_path, SEARCHING)
    with pytest.raises(RunConflict) as refusal:
        check_settings(out, msgspec.structs.replace(SEARCHING, **changed))
    assert said in str(refusal.value)


def test_where_the_seed_lies_may_change(tmp_path: Path) -> None:
    check_settings(finished(tmp_path, PLAIN), msgspec.structs.replace(PLAIN, origin="moved"))
