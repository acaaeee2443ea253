"""Where a device's ONNX Runtime comes from: a file that the user names, this Python's package, PyPI's wheels, one package of npm's."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from latency.errors import InvalidRuntime
from latency.runtime import RuntimeLibrary, cache_folder, from_file, installed, installed_package, keep
from latency.scratch import Scratch

__all__ = ["FETCH", "LOCAL_WAYS", "NPM_PACKAGE", "NpmPackage", "for_linux", "for_phone", "from_npm", "from_pip"]

FETCH = "fetch"
LOCAL_WAYS = ("python", "runner")  # stand for a runtime only where this computer is timed
MAVEN = "com.microsoft.onnxruntime:onnxruntime-android"
DOWNLOAD_S = 900
WHEEL_LIBC = "manylinux_2_28"  # the newest that ONNX Runtime's wheels name; an older one silently gives an older version

Say = Callable[[str], None]


class NpmPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package of npm's, known by the SHA-256 of its file and of the library in it for each machine."""

    name: str
    version: str
    publisher: str
    holds: str
    size_bytes: int
    sha256: str
    libraries: Mapping[str, str]


NPM_PACKAGE = NpmPackage(
    name="com.github.asus4.onnxruntime", version="0.4.9", publisher="asus4, not Microsoft", holds="the onnxruntime-android AAR 1.29.0",
    size_bytes=149_786_233, sha256="e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d",
    libraries=MappingProxyType({
        "aarch64": "3a602b463d434d20fbf69cd1b8bdfd2f86a2cb67d08de97aec8f62476fa4ab87",
        "x86_64": "1fbfff77a79d79d4e99c2ae78d048044b689782da7e2b0a268443279ae615566",
    }),
)  # fmt: skip
NO_RUNTIME = (
    f"android: a phone needs ONNX Runtime's library for Android, and none is fetched unasked: download the .aar of {MAVEN} from "
    f"Maven Central and name it, --runtime FILE or ONNXRUNTIME_ANDROID=FILE in the environment; --runtime {FETCH} takes the copy in "
    f"npm's package {NPM_PACKAGE.name} (by {NPM_PACKAGE.publisher})"
)


def for_linux(machine: str, chosen: str = "", *, say: Say | None = None) -> RuntimeLibrary:
    """The glibc library for a board or this computer: the chosen file, else that of the package installed here, else PyPI's wheel.

    Raises:
        InvalidRuntime: the file does not fit, or nothing could be downloaded.
    """
    if chosen and chosen != FETCH:
        return from_file(_named(chosen), machine=machine, libc="glibc")
    own = installed()
    return own if own and (own.machine, own.libc) == (machine, "glibc") else from_pip(machine, say=say)


def for_phone(machine: str, chosen: str, *, say: Say | None = None) -> RuntimeLibrary:
    """Android's library: from the chosen file, or ``fetch``: from npm's package.

    Raises:
        InvalidRuntime: none is chosen, the file does not fit, or the package could not be fetched or is not the one that is known.
    """
    if not chosen:
        raise InvalidRuntime(NO_RUNTIME)
    return from_npm(machine, say=say) if chosen == FETCH else from_file(_named(chosen), machine=machine, libc="bionic")


def from_pip(machine: str, *, say: Say | None = None) -> RuntimeLibrary:
    """The glibc library of the wheel for ``machine`` and the version installed here, downloaded by pip once.

    Raises:
        InvalidRuntime: there is no onnxruntime here, or pip could not download it; the text has its last line.
    """
    package = installed_package()
    if package is None:
        told = "a board gets the version that is installed here"
        raise InvalidRuntime(f"{told}, and this Python has no onnxruntime: pip install onnxruntime, or name a file with --runtime")
    version = package.version.partition("+")[0]  # what stands behind a + names a variant's build, and PyPI has none
    kept = cache_folder() / f"onnxruntime-{version}-{machine}.txt"  # holds the name of the library: a hash cannot be known before
    if kept.is_file() and (library := _kept(kept.read_text().strip().partition("/")[0], machine)):
        return library
    (say or _to_stderr)(f"downloading onnxruntime {version} for {machine} with pip, once: some 25 MB")
    with Scratch() as folder:
        wheel = ("--platform", f"{WHEEL_LIBC}_{machine}", "--only-binary=:all:", "--no-deps", "--dest", str(folder))
        command = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *wheel, f"onnxruntime=={version}")
        failed = _download(command, f"pip cannot download onnxruntime {version} for {machine}", "name a file with --runtime")
        library = from_file(_only(folder, "*.whl", failed), machine=machine, libc="glibc")
    keep(kept, library.path.relative_to(cache_folder()).as_posix().encode())
    return library


def from_npm(machine: str, package: NpmPackage = NPM_PACKAGE, *, say: Say | None = None) -> RuntimeLibrary:
    """Android's library in a package of npm's, fetched by npm once; a file with another hash than ``package`` says is refused.

    Raises:
        InvalidRuntime: there is no npm, it could not fetch the package, or the package is another one than is known here.
    """
    if library := _kept(package.libraries.get(machine, ""), machine):
        return library
    what, instead = f"{package.name}@{package.version}", f"name the .aar of {MAVEN} with --runtime"
    npm = shutil.which("npm")
    if npm is None:
        raise InvalidRuntime(f"--runtime {FETCH} takes {what} with npm, and there is no npm here: install Node.js, or {instead}")
    (say or _to_stderr)(
        f"fetching {what} with npm, once: {package.size_bytes / 1e6:.0f} MB by {package.publisher}, with {package.holds} in it; "
        f"it must have SHA-256 {package.sha256}"
    )
    with Scratch() as folder:
        command = (npm, "pack", "--json", "--loglevel=error", "--ignore-scripts", "--pack-destination", str(folder), what)
        failed = _download(command, f"npm cannot fetch {what}", instead)
        archive = _only(folder, "*.tgz", failed)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != package.sha256:
            raise InvalidRuntime(f"{what} as npm gives it is not the one known here: SHA-256 {found}; it was not used: {instead}")
        return from_file(archive, machine=machine, libc="bionic")


def _named(chosen: str) -> Path:
    if chosen in LOCAL_WAYS:
        raise InvalidRuntime(f"--runtime {chosen} is for this computer (--device local): name a .aar, .whl, .tgz or .so")
    return Path(chosen)


def _kept(sha256: str, machine: str) -> RuntimeLibrary | None:
    """The library of that hash in the cache, read again: None where it is not there or not whole."""
    path = cache_folder() / sha256 / "libonnxruntime.so"
    if not sha256 or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        return None
    return from_file(path, machine=machine)


def _download(command: Sequence[str], what: str, instead: str) -> InvalidRuntime:
    """Run a registry's client; gives the error to raise where it has left nothing.

    Raises:
        InvalidRuntime: it failed, or did not end in time.
    """
    quiet = {**os.environ, "NPM_CONFIG_UPDATE_NOTIFIER": "false"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False, stdin=subprocess.DEVNULL, env=quiet)
    except subprocess.TimeoutExpired as error:
        raise InvalidRuntime(f"{what} within {DOWNLOAD_S} s; {instead}") from error
    failed = InvalidRuntime(f"{what}: {_reason(done.stdout, done.stderr)}; {instead}")
    if done.returncode:
        raise failed
    return failed


def _reason(out: str, err: str) -> str:
    """The summary in npm's document, else the last words."""
    with contextlib.suppress(msgspec.MsgspecError, LookupError, TypeError):
        return " ".join(str(msgspec.json.decode(out)["error"]["summary"]).split())
    lines = [line.strip() for line in (err or out).splitlines() if line.strip()]
    return (lines or ["it said nothing"])[-1]


def _only(folder: Path, pattern: str, failed: InvalidRuntime) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise failed
    return found[0]


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
