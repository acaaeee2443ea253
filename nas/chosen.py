"""Candidates of a run by id: what verbs that work on a run are asked for."""

from collections.abc import Sequence

from nas.errors import NasError, UnknownName
from nas.store import Candidate, Run

__all__ = ["chosen"]


def chosen(run: Run, ids: Sequence[str], *, with_weights: bool = True) -> list[Candidate]:
    """The trained rows with these ids (or unique beginnings of ids), the fully trained one where there is one; none: the front.

    A distilled row has the id of its student and is asked for by its name, ID-KEY. ``with_weights``: one without weights of its own,
    which was scored with inherited ones, is refused.

    Raises:
        NasError: an id that the run has not, or has not trained; a run without a front.
    """
    trained = {r.id: r for r in run.rows if r.status == "trained" and r.stage in ("search", "refine")}
    trained |= {r.id: r for r in run.rows if r.status == "trained" and r.stage == "final"}
    distilled = {r.name: r for r in run.rows if r.status == "trained" and r.stage == "distill"}
    if not ids:
        if not len(run.front):
            go_on = f"python -m nas.search --config {run.path}/config.json --out {run.path}"
            raise NasError(f"{run.path} has no front yet; finish it with: {go_on}")
        return [trained[i] for i in run.front["id"]]
    found = []
    for wanted in ids:
        menu = distilled if "-" in wanted else trained
        hits = [r for i, r in menu.items() if i.startswith(wanted)]
        if not hits:
            raise UnknownName.among(f"model in {run.path}", wanted, menu or trained)
        if len(hits) > 1:
            raise NasError(f"{wanted} begins {len(hits)} ids; say more of it")
        found += hits
    if with_weights and (bare := next((r for r in found if not r.weights), None)):
        raise NasError(f"{bare.id} has no weights of its own: it was scored with inherited ones, and only the front was trained")
    return found
