"""Measured latencies that outlive a run: one SQLite file, keyed by model, device, runtime and plan."""

import hashlib
import json
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from latency.measurement import DeviceInfo, Measurement
from latency.plan import PLANS, TimingPlan
from latency.user_cache import user_cache

__all__ = ["KEPT_DAYS", "LatencyStore", "open_store", "plan_sha256", "store_path", "variation"]

VERSION = 1
KEPT_DAYS = 90  # what is older was measured before who knows what changed, and is forgotten
TAKES = 8  # of one model, device, runtime and plan: more tell nothing new of the spread
BUSY_S = 15.0
SPREAD_TAKES, SPREAD_MODELS = 2, 3  # at least so many processes of a model, and so many such models, make a spread
TABLE = """
CREATE TABLE IF NOT EXISTS takes (
  id INTEGER PRIMARY KEY, model TEXT NOT NULL, device TEXT NOT NULL, runtime TEXT NOT NULL, plan TEXT NOT NULL,
  plan_name TEXT NOT NULL, taken_at TEXT NOT NULL, p50_ms REAL NOT NULL, process_p50_ms TEXT NOT NULL, data BLOB NOT NULL
)"""
INDEX = "CREATE INDEX IF NOT EXISTS by_key ON takes (model, device, runtime, plan)"
KEY = "model = ? AND device = ? AND runtime = ? AND plan = ?"

T = TypeVar("T")
Say = Callable[[str], None]


class LatencyStore:
    """An open store. It never fails a run: what goes wrong with the file is said once, and the run goes on without it.

    Several processes may write at once; a killed one leaves whole rows only. For use from one thread. What the device fake says is
    not kept: nothing was measured.
    """

    def __init__(self, path: Path, *, warn: Say, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Opens or makes the file; one that is no database is set aside.

        Args:
            path: the file; its folder is made.
            warn: takes a sentence about what is wrong with the file.
            now: the time, with its zone.
        """
        self._path, self._warn, self._now = path, warn, now
        self._writes = True
        self._db: sqlite3.Connection | None = None
        self._open()
        self._write(lambda db: db.execute("DELETE FROM takes WHERE taken_at < ?", (self._oldest(),)))

    def find(self, models: Iterable[str], device: DeviceInfo, plan: TimingPlan) -> dict[str, Measurement]:
        """The newest trustworthy measurement of each model that has one; models by their SHA-256 in hex.

        One that was taken under another kernel is left: it is the same device, and may be some per cent faster or slower now.
        """
        key = (device.id, device.runtime, plan_sha256(plan))
        found: dict[str, Measurement] = {}
        for model in dict.fromkeys(models):
            taken = self._do(partial(self._newest, (model, *key)), None)
            if taken is not None and taken.device.kernel in ("", device.kernel):
                found[model] = taken
        return found

    def keep(self, taken: Sequence[Measurement], plan_name: str = "") -> None:
        """Adds measurements; on the disk when this returns, as far as the system keeps its word.

        Those with ``problems()`` are never found again, but count for the spread: it would else be that of the steady ones.
        ``plan_name`` is what ``spread`` is asked for later.
        """
        rows = [_row(m, plan_name) for m in taken if m.device.kind != "fake"]
        if rows:
            self._write(lambda db: _insert(db, rows))

    def spread(self, device_id: str, plan_name: str) -> float | None:
        """How far processes differ on this device under plans of this name, see ``variation``: in one measurement or in several."""
        ask = "SELECT model, runtime, plan, process_p50_ms FROM takes WHERE device = ? AND plan_name = ?"
        rows: list[tuple[str, ...]] = self._do(lambda db: db.execute(ask, (device_id, plan_name)).fetchall(), [])
        models: dict[tuple[str, ...], list[float]] = {}
        for *key, processes in rows:
            models.setdefault(tuple(key), []).extend(json.loads(processes))
        return variation(models.values())

    def known_spread(self, device_id: str) -> float | None:
        """The device's ``spread`` by the most thorough plan that tells one; None where none does."""
        found = (self.spread(device_id, name) for name in reversed(PLANS))
        return next((cv for cv in found if cv is not None), None)

    def close(self) -> None:
        """Let go of the file; closing twice is no error, and a closed store is empty."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _newest(self, key: tuple[str, ...], db: sqlite3.Connection) -> Measurement | None:
        ask = f"SELECT data FROM takes WHERE {KEY} AND taken_at >= ? ORDER BY id DESC"
        rows = db.execute(ask, (*key, self._oldest()))
        return next((taken for (data,) in rows if (taken := _measurement(data)) is not None), None)

    def _oldest(self) -> str:
        return _iso(self._now() - timedelta(days=KEPT_DAYS))

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        def transaction(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                work(db)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

        if self._writes:
            self._do(transaction, None, writes=True)

    def _do(self, work: Callable[[sqlite3.Connection], T], otherwise: T, *, writes: bool = False) -> T:
        """What ``work`` gives, tried once more on a new file where this one turns out to be broken."""
        for _ in range(2):
            if self._db is None:
                break
            try:
                return work(self._db)
            except sqlite3.Error as error:
                if _is_broken(error):
                    self._replace(error)
                else:
                    self._give_up(error, writes=writes)
                    break
        return otherwise

    def _open(self) -> None:
        try:
            self._db = _connected(self._path)
        except sqlite3.Error as error:
            if _is_broken(error):
                self._replace(error)
            else:
                self._give_up(error, writes=True)
                self._open_to_read()
        except OSError as error:
            self._warn(f"no latency store at {self._path} ({error.strerror or error}): nothing measured is kept for later")

    def _open_to_read(self) -> None:
        """A store that cannot be written may still be read: of a colleague, or on a disk that is full."""
        for how in ("mode=ro", "immutable=1"):  # the first wants to see what is not in the main file yet, and cannot always
            self._db = self._db or _to_read(f"{self._path.absolute().as_uri()}?{how}")

    def _replace(self, error: sqlite3.Error) -> None:
        """Sets a broken file aside, unless another process was faster, and begins a new one."""
        self.close()
        try:
            aside = _set_aside(self._path)
            if aside is not None:
                self._warn(f"the latency store {self._path} is broken ({error}): it is now {aside.name}, and a new one is begun")
            self._db = _connected(self._path)
        except (sqlite3.Error, OSError) as again:
            self._warn(f"no latency store at {self._path} ({again}): nothing measured is kept for later")

    def _give_up(self, error: sqlite3.Error, *, writes: bool) -> None:
        """Says once that nothing is written (or, where reading fails, used) any more."""
        if writes:
            self._writes = False
            self._warn(f"cannot write the latency store {self._path} ({error}): nothing measured is kept for later")
        else:
            self.close()
            self._warn(f"cannot read the latency store {self._path} ({error}): everything is measured anew")


def store_path() -> Path:
    """The user's own store: ``latencies.sqlite`` in ``user_cache()``."""
    return user_cache() / "latencies.sqlite"


def open_store(path: Path | None = None, *, warn: Say | None = None) -> LatencyStore:
    """The store in a file, by default the user's own; warnings go to stderr where nobody takes them."""
    return LatencyStore(path or store_path(), warn=warn or _to_stderr)


def plan_sha256(plan: TimingPlan) -> str:
    """A hash of everything a plan says."""
    return hashlib.sha256(msgspec.json.encode(plan, order="sorted")).hexdigest()


def variation(models: Iterable[Sequence[float]]) -> float | None:
    """How far processes differ: the median over models of the coefficient of variation of their processes' medians.

    Each model's is corrected for what the median of so few would lack. None where fewer than three models have two processes.
    """
    spreads = [_variation(processes) for processes in models if len(processes) >= SPREAD_TAKES]
    return float(np.median(spreads)) if len(spreads) >= SPREAD_MODELS else None


def _connected(path: Path) -> sqlite3.Connection:
    """The file's connection, in autocommit; a new file gets its table."""
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        if _version(db) != VERSION:
            # SQLite does not wait for its turn where two switch one file to WAL at once.
            with filelock.FileLock(f"{path}.lock", timeout=BUSY_S):
                _make(db)
        db.execute("PRAGMA synchronous = FULL")  # in WAL, NORMAL leaves the last commits to chance when the power goes
    except filelock.Timeout as error:
        db.close()
        raise sqlite3.OperationalError("another process keeps it locked") from error
    except BaseException:
        db.close()
        raise
    return db


def _to_read(uri: str) -> sqlite3.Connection | None:
    try:
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
    except sqlite3.Error:
        return None
    try:
        if _version(db) == VERSION:
            return db
    except sqlite3.Error:
        pass
    db.close()
    return None


def _make(db: sqlite3.Connection) -> None:
    found = _version(db)
    if found > VERSION:
        raise sqlite3.OperationalError(f"a newer version of this program made it (format {found}, and this one knows {VERSION})")
    if found < VERSION:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        db.execute(TABLE)
        db.execute(INDEX)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _set_aside(path: Path) -> Path | None:
    """Renames a broken file and what belongs to it; None where it is whole by now."""
    import filelock

    with filelock.FileLock(f"{path}.lock", timeout=BUSY_S):
        if not path.exists() or _is_whole(path):
            return None
        names = (f"{path.name}.broken-{i}" for i in range(1, 10_000))
        aside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
        for ending in ("-wal", "-shm"):
            Path(f"{path}{ending}").unlink(missing_ok=True)
        return path.rename(aside)


def _is_whole(path: Path) -> bool:
    db = sqlite3.connect(path, timeout=BUSY_S)
    try:
        return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError as error:
        if not _is_broken(error):
            raise
        return False
    finally:
        db.close()


def _is_broken(error: sqlite3.Error) -> bool:
    # The low byte is the primary code, the rest says more about it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _row(taken: Measurement, plan_name: str) -> tuple[str | float | bytes, ...]:
    key = (taken.model_sha256, taken.device.id, taken.device.runtime, plan_sha256(taken.plan))
    processes = json.dumps(taken.process_p50_ms)
    return (*key, plan_name, taken.taken_at, taken.p50_ms, processes, zlib.compress(msgspec.json.encode(taken)))


def _insert(db: sqlite3.Connection, rows: Sequence[tuple[str | float | bytes, ...]]) -> None:
    columns = "model, device, runtime, plan, plan_name, taken_at, p50_ms, process_p50_ms, data"
    db.executemany(f"INSERT INTO takes ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    newest = f"SELECT id FROM takes WHERE {KEY} ORDER BY id DESC LIMIT {TAKES}"
    db.executemany(f"DELETE FROM takes WHERE {KEY} AND id NOT IN ({newest})", [(*row[:4], *row[:4]) for row in rows])


def _measurement(data: bytes) -> Measurement | None:
    """None for what an older version of this program wrote and this one cannot read or would not trust."""
    try:
        taken = msgspec.json.decode(zlib.decompress(data), type=Measurement)
    except (zlib.error, msgspec.DecodeError):
        return None
    return None if taken.problems() else taken


def _variation(values: Sequence[float]) -> float:
    """Coefficient of variation; the median of the sample's is below the true one by sqrt(median of chi² / degrees of freedom)."""
    free = len(values) - 1
    # Wilson and Hilferty's approximation of that median, within 1.5 % from one degree of freedom on.
    lack = (1 - 2 / (9 * free)) ** 1.5
    return float(np.std(values, ddof=1) / np.mean(values) / lack)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _to_stderr(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
