"""Every knob of a search, with unit and default, once; from flags, a TOML file or a run's config.json."""

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from nas.errors import InvalidConfig
from nas.recipe import BankPlan, Recipe
from nas.stages.rules import STAGE_FIELDS, StageName, stage_rules

__all__ = ["OF_A_DEVICE", "RESUMABLE", "RunConfig", "config_from_file", "fields_of_file", "parse_duration_s"]

Reward = Literal["pareto", "soft", "hard", "abs"]
DEFAULT_W: Mapping[str, float] = {"soft": -0.07, "abs": -0.10}
FILE_ONLY = frozenset({"round_size", "overlap", "recipe", "bank", "data_seed"})
RESUMABLE = STAGE_FIELDS | {
    "trials", "budget_s", "baselines", "workers", "executor", "ray_address", "devices", "device_wait_s", "fresh", "remeasure", "reuse",
}  # fmt: skip
"""Fields that may differ when a run is taken up again: they say how far and how fast, and what stands beside the front, not
what is searched.

Of devices only the way to them may: another device than the run's rows were measured on is refused when it is opened, unless
``remeasure`` says that all is to be measured anew there.
"""


OF_A_DEVICE = frozenset({"table", "runtime", "threads", "max_ms", "target_ms"})
"""Fields that may differ too when a run goes on with another device."""


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One search, fully determined: the same config and seed propose the same architectures."""

    space: str = "mnasnet"  # a built-in name or a .toml file
    width: float = 1.0  # width multiplier of the whole space
    task: str = "classify"
    data: str = "photos"  # photos | cifar10 | folder:PATH | npz:PATH | ...
    data_root: str = "data"  # where downloads go
    image_size: int | None = None  # px; None: the data set's own
    train_images: int | None = None  # cap on training images; None: all
    devices: tuple[str, ...] = ("local",)  # several: phones or boards of one model, which share the measuring
    runtime: str = ""  # ONNX Runtime for the device: a file, fetch, or "": its own
    device_wait_s: float = 900.0  # for a device that is unplugged on the way, where there is no other
    table: str | None = None  # latency table of the device: what it shows to be far from the front is not measured
    fresh: bool = False  # measure what earlier runs measured alike on the same device
    remeasure: bool = False  # take up a run of another device: its scores stay, its latencies are taken anew on this one
    reuse: str | None = None  # a run whose full trainings are taken over where they are the same
    threads: int = 1  # of the measured runtime
    sampler: str = "tpe"
    reward: Reward = "pareto"
    target_ms: float | None = None  # T of the MnasNet reward
    w: float | None = None  # exponent of soft (-0.07), weight of abs (-0.10)
    max_ms: float | None = None  # candidates above are rejected before training
    evaluate: Literal["alone", "inherited"] = "alone"  # train each candidate, or score it with weights from a bank that is trained once
    bank_epochs: int = 30  # of that bank
    epochs: int = 5  # proxy training of each candidate (MnasNet §5: 5)
    final_epochs: int = 30  # full recipe of front and baselines
    trials: int = 100  # candidates to train (rejected and repeated ones cost next to nothing and come on top)
    budget_s: float | None = None  # wall time for everything; None: until `trials`
    round_size: int = 8  # proposals asked at once; never depends on the machine, so that a resumed run proposes the same
    front_size: int = 8  # members of the search's front that are trained in full
    baselines: tuple[str, ...] = (
        "mobilenet_v2", "mnasnet_a1", "mobilenet_v3_large", "mobilenet_v3_small", "mnasnet_small", "mobilenet_v3_small_minimal",
    )  # fmt: skip
    baseline_widths: int = 2  # at most so many widths of each family inside the front's latency range
    workers: int | None = None  # None: one a core, or one core less where one is kept for measuring
    executor: Literal["ray", "serial"] = "ray"
    ray_address: str | None = None
    overlap: Literal["auto", "on", "off"] = "auto"  # measure while workers train; auto: from 4 cores on
    seed: int = 0
    data_seed: int | None = None  # of subsets and split-off validation images; None: seed
    recipe: Recipe = Recipe()  # of both; its own `epochs` is replaced by the two above
    bank: BankPlan = BankPlan()  # of the bank; its recipe's own `epochs` is replaced by bank_epochs
    stages: tuple[StageName, ...] = ("search",)  # what is done with the front of a finished search: refine, distill
    refine_ratio: float | None = None  # latency to refine to, of the seed's own; None: 0.7, unless there is refine_ms
    refine_ms: float | None = None
    refine_members: int = 1  # found networks that are refined, the most accurate first
    refine_steps: int = 100  # optimizer steps of each proposal
    refine_delta: float = 0.01  # least that a step saves, of the seed's latency
    teacher: str = ""  # as nas.distill takes it
    teacher_arch: str | None = None
    teacher_norm: str = "auto"
    teacher_epochs: int | None = None  # of train:NAME; None: distill_epochs
    loss: str = "nkd"
    loss_options: dict[str, float | str] = {}  # as nas.distill --set
    distill_epochs: int | None = None  # None: final_epochs, the budget of the undistilled networks
    distill_baselines: bool = False  # teach the baselines too

    def __post_init__(self) -> None:
        for rule, holds in self._rules().items():
            if not holds:
                raise InvalidConfig(rule)

    def _rules(self) -> dict[str, bool]:
        positive = ("width", "threads", "epochs", "bank_epochs", "final_epochs", "trials", "round_size", "front_size", "baseline_widths")
        optional = ("target_ms", "max_ms", "budget_s", "workers", "image_size", "train_images")
        rules = {f"{_flag(k)} must be a positive number, got {getattr(self, k)}": 0 < getattr(self, k) < math.inf for k in positive}
        given = {k: getattr(self, k) for k in optional if getattr(self, k) is not None}
        rules |= {f"{_flag(k)} must be a positive number, got {value}": 0 < value < math.inf for k, value in given.items()}
        return rules | {
            f"--reward {self.reward} needs --target-ms": self.reward == "pareto" or self.target_ms is not None,
            f"--w belongs to --reward soft or abs, not to {self.reward}": self.w is None or self.reward in DEFAULT_W,
            f"--w must be a negative number, got {self.w}": self.w is None or -math.inf < self.w < 0,
            f"--seed must not be negative, got {self.seed}": self.seed >= 0,
            f"--device-wait must not be negative, got {self.device_wait_s} s": 0 <= self.device_wait_s < math.inf,
            "devices must name at least one, such as local": bool(self.devices),
            **stage_rules(self),
        }

    @property
    def exponent(self) -> float:
        """w of the soft and absolute rewards: the user's, else the published default."""
        return self.w if self.w is not None else DEFAULT_W.get(self.reward, 0.0)


def parse_duration_s(text: str, *, may_be_zero: bool = False) -> float:
    """Seconds in a text like ``90``, ``45s``, ``10m``, ``1.5h`` or ``1h30m``.

    Raises:
        InvalidConfig: anything else, or zero where it may not be.

    >>> parse_duration_s("10m"), parse_duration_s("1h30m"), parse_duration_s("90")
    (600.0, 5400.0, 90.0)
    """
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        text += "s"
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in parts)
    if "".join(n + unit for n, unit in parts) != text or not parts or (seconds <= 0 and not may_be_zero):
        raise InvalidConfig(f"not a duration: {text!r}; write for example 45s, 10m or 1h30m")
    return float(seconds)


def config_from_file(path: Path, overrides: Mapping[str, Any]) -> RunConfig:  # Any: values of any field
    """The configuration in a TOML or JSON file, with single fields replaced by ``overrides``.

    TOML files may say ``budget = "10m"`` for ``budget_s``, ``device_wait = "15m"`` for ``device_wait_s``, and ``device = "local"`` for
    ``devices`` of one.

    Raises:
        InvalidConfig: unreadable, not TOML or JSON, an unknown field, a wrong value; names the file and the field.
    """
    return config_from_table({**_table_of(path), **overrides}, where=str(path))


def fields_of_file(path: Path) -> frozenset[str]:
    """The fields that a TOML or JSON file sets; raises as ``config_from_file``."""
    return frozenset(_table_of(path))


def _table_of(path: Path) -> dict[str, Any]:  # Any: values of any field
    try:
        text = path.read_text()
        table = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidConfig(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    if not isinstance(table, dict):
        raise InvalidConfig(f"{path}: must hold a table of settings")
    if "budget" in table:
        table["budget_s"] = parse_duration_s(str(table.pop("budget")))
    if "device_wait" in table:
        table["device_wait_s"] = parse_duration_s(str(table.pop("device_wait")), may_be_zero=True)
    if "device" in table:
        device = table.pop("device")
        table["devices"] = [device] if isinstance(device, str) else device
    return table


def config_from_table(table: Mapping[str, Any], *, where: str = "flags") -> RunConfig:
    """The configuration of a mapping from field to value; ``where`` is named in errors."""
    try:
        return msgspec.convert(_with_epochs(table), RunConfig)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"{where}: {_with_hint(str(error))}") from error


def _with_epochs(table: Any) -> Any:  # Any: what a file says
    """The table and those in it; a recipe that says no epochs, since others replace them, has as many as its warm-up wants."""
    if not isinstance(table, Mapping):
        return table
    found = {name: _with_epochs(value) for name, value in table.items()}
    warmup = found.get("warmup_epochs")
    if "epochs" not in found and isinstance(warmup, int | float) and Recipe().epochs <= warmup < math.inf:
        found["epochs"] = math.floor(warmup) + 1
    return found


def _with_hint(message: str) -> str:
    import difflib

    unknown = re.search(r"unknown field `(\w+)`", message)
    fields = RunConfig.__struct_fields__ + (Recipe.__struct_fields__ if "recipe" in message else ())
    fields += BankPlan.__struct_fields__ if "bank" in message else ()
    near = difflib.get_close_matches(unknown[1], fields, n=1) if unknown else []
    return f"{message}; did you mean {near[0]!r}?" if near else message


def _flag(field: str) -> str:
    if field in FILE_ONLY:
        return f"{field} (in a config file)"
    return "--" + field.removesuffix("_s").replace("_", "-")
