"""A bank on disk: one safetensors file with the weights, their average, the optimizer's moments, and what they are for."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from latency.onnx_graph import InvalidWeights
from nas.errors import RunConflict
from nas.recipe import BankPlan
from nas.sharing.bank import Bank
from nas.tasks.task import Task
from nas.weights import save
from search_spaces.architecture import Head
from search_spaces.space import SearchSpace

__all__ = ["Notes", "Stamp", "load_bank", "bank_facts", "open_average", "refuse_foreign", "refuse_other", "save_bank"]


class Stamp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bank was made for; it goes on, and scores networks, for nothing else."""

    space: str
    space_sha256: str
    data: str
    data_sha256: str
    head: Head
    plan: BankPlan
    seed: int

    @classmethod
    def of(cls, space: SearchSpace, task: Task, plan: BankPlan, seed: int) -> "Stamp":
        """The stamp of a training."""
        return cls(
            space=f"{space.name} x{space.width_mult:g} at {'x'.join(map(str, space.input_chw))}",
            space_sha256=hashlib.sha256(msgspec.json.encode(space, order="sorted")).hexdigest(),
            data=task.data, data_sha256=task.data_sha256, head=task.head, plan=plan, seed=seed,
        )  # fmt: skip


class Notes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a training is: ``step`` of ``steps`` done; the mean loss of each whole epoch, and the sum of the one at work."""

    step: int
    steps: int
    usage: dict[str, dict[str, int]] = {}
    losses: tuple[float, ...] = ()
    loss_sum: float = 0.0


def save_bank(path: Path, stamp: Stamp, notes: Notes, groups: Mapping[str, Bank]) -> None:
    """Writes groups of tensors ("live", "average", moments) to ``path``, all of it or nothing."""
    tensors = {f"{group}/{name}": t for group, bank in groups.items() for name, t in bank.items()}
    save(tensors, path, metadata={"stamp": msgspec.json.encode(stamp).decode(), "notes": msgspec.json.encode(notes).decode()})


def load_bank(path: Path) -> tuple[Stamp, Notes, dict[str, dict[str, Tensor]]]:
    """What ``save_bank`` wrote, on the CPU.

    Raises:
        InvalidWeights: no bank, or a damaged one.
    """
    stamp, notes = bank_facts(path)
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _tensors(path, ""):
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    return stamp, notes, groups


def open_average(path: Path) -> dict[str, Tensor]:
    """The moving average of a bank's weights, on the CPU: what networks inherit. Nothing else is read.

    Raises:
        InvalidWeights: no bank, a damaged one, or one whose training has not come to its end.
    """
    _, notes = bank_facts(path)
    if notes.step < notes.steps:
        raise InvalidWeights(f"{path}: trained for {notes.step} of {notes.steps} steps; give the command that began it again to go on")
    return {key.removeprefix("average/"): tensor for key, tensor in _tensors(path, "average/")}


def refuse_other(
    path: Path, there: Stamp, here: Stamp, *, advice: str = "name another --out, or remove the file to train a new bank"
) -> None:
    """Refuses a bank that was made for something else than is wanted; a data set is the same whatever its file is called.

    Raises:
        RunConflict: names what differs, and both of them.
    """
    what = next(_differences(there, here), None)
    if what:
        raise RunConflict(f"{path} is a bank {what}; {advice}")


def refuse_foreign(path: Path, space: SearchSpace, task: Task) -> None:
    """Refuses a bank of another space, data set or head, however it was trained.

    Raises:
        RunConflict: names what differs, and both of them.
        InvalidWeights: no bank, or a damaged one.
    """
    there, _ = bank_facts(path)
    refuse_other(path, there, Stamp.of(space, task, there.plan, there.seed), advice="put the run's own bank back")


def _differences(there: Stamp, here: Stamp) -> Iterator[str]:
    named = (
        ("space", there.space, there.space_sha256, here.space, here.space_sha256),
        ("data set", there.data, there.data_sha256, here.data, here.data_sha256),
    )
    for what, name, sha256, our_name, our_sha256 in named:
        if sha256 != our_sha256:
            yield f"of the {what} {name}, not {our_name}" if name != our_name else f"of another content of the {what} {name}, changed since"
    for what, was, now in (
        ("head", there.head, here.head), ("plan", there.plan, here.plan), ("recipe", there.plan.recipe, here.plan.recipe),
    ):  # fmt: skip
        theirs, ours = msgspec.structs.asdict(was), msgspec.structs.asdict(now)
        if changed := [f"{k} {theirs[k]} there, {ours[k]} here" for k in theirs if theirs[k] != ours[k] and k != "recipe"]:
            yield f"for another {what} ({', '.join(changed)})"
    if there.seed != here.seed:
        yield f"of seed {there.seed}, not {here.seed}"


def bank_facts(path: Path) -> tuple[Stamp, Notes]:
    """What a bank is for, and how far its training is; no tensor is read.

    Raises:
        InvalidWeights: no bank, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            noted: dict[str, str] = file.metadata() or {}
        return msgspec.json.decode(noted["stamp"], type=Stamp), msgspec.json.decode(noted["notes"], type=Notes)
    except (OSError, SafetensorError, KeyError, msgspec.DecodeError) as error:
        raise InvalidWeights(f"{path}: not a readable bank ({error}); remove it to train a new one") from error


def _tensors(path: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118  # the file is no mapping
            if key.startswith(prefix):
                yield key, file.get_tensor(key).clone()  # the file's own is mapped memory
