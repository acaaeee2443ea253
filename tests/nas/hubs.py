"""torch's cache of downloaded weights on a computer without network, and files in it that stand for torchvision's."""

import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models._api import WeightsEnum


def empty_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the downloaded files."""

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder / "hub"))
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    return folder / "hub" / "checkpoints"


def publish(file: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in the cache under a name with its hash, which from now on is that of all of torchvision's weights."""
    path = hub / f"net-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(WeightsEnum, "url", property(lambda _: f"https://example.org/{path.name}"))
    return file.rename(path)


def publish_pickle(folder: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Publishes a pickle that runs code when it is loaded; gives the file that this code would make."""
    marker = folder / "ran"

    class Touch:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    (folder / "w.pth").write_bytes(pickle.dumps({"weight": Touch()}))
    publish(folder / "w.pth", hub, monkeypatch)
    return marker
