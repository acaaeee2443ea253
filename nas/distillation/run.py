"""The steps of a distillation, in order: open the run, find or train the teacher, hold it against the students, teach, compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from latency.console import Console, duration, open_console
from nas.chosen import chosen
from nas.cores import become_worker, workers_of
from nas.distillation import report
from nas.distillation.jobs import DistillJobs
from nas.distillation.lesson import LessonConfig, Option, Start, TeacherSpec
from nas.distillation.lessons import label, lessons
from nas.distillation.own_teacher import trained_teacher
from nas.distillation.starts import Starts
from nas.distillation.teachers import Teacher, named_baseline, named_network, open_teacher, resolve
from nas.distillation.unused import refuse_unused
from nas.distillation.worth import compare_with_students
from nas.errors import InvalidConfig, Stopped
from nas.evaluate import judge
from nas.executors import EXECUTORS
from nas.finals import FINAL_SEED
from nas.jobs import open_config_task, recipe_for
from nas.outputs import refuse_other_data
from nas.recipe import Recipe
from nas.samplers import proposal_seed
from nas.store import Candidate, Run, RunFolder, load_run, open_run
from nas.tasks.task import Task
from nas.weights import load
from search_spaces import open_space
from search_spaces.baselines import BASELINES, published

__all__ = ["Request", "distill", "refuse_unteachable"]

GLANCED = 200  # validation images that a teacher is asked for before a search


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a user asks for; see ``python -m nas.distill --help``. ``epochs`` and ``lr`` None: the run's own for full trainings."""

    losses: tuple[str, ...]
    models: tuple[str, ...] = ()
    teacher: str = ""
    teacher_arch: str | None = None
    teacher_norm: str = "auto"
    teacher_epochs: int | None = None
    online: str = ""
    settings: Mapping[str, Option]
    sweep: Mapping[str, Sequence[Option]]
    seeds: int = 1
    epochs: int | None = None
    lr: float | None = None
    start: Start = "scratch"
    keeps_logits: bool = True
    workers: int | None = None
    executor: Literal["ray", "serial"] | None = None
    shows: bool = False

    def __post_init__(self) -> None:
        counts = {"seeds": self.seeds, "epochs": self.epochs, "teacher-epochs": self.teacher_epochs, "workers": self.workers}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise InvalidConfig(f"--{name} must be at least 1, got {value}")


def distill(path: Path, request: Request, console: Console | None = None) -> list[Candidate]:
    """Teaches students of the run in ``path`` and adds a row for each training; what it already has is not trained again.

    Raises:
        NasError: bad names, values or teacher (before anything is trained), or every training failed.
    """
    console, run = console or open_console(), load_run(path)
    recipe = _recipe(run, request)
    become_worker()
    task = open_config_task(run.config)
    refuse_other_data(path, task)
    students = _students(run, request, task)
    _named_nets(request, task)
    starts = Starts(path, partial(open_space, run.config.space, width=run.config.width, input_chw=task.input_chw), task)
    for student in students:
        starts.key(request.start, student)  # refuses what is not there before a teacher is trained
    if request.shows:
        rows = _done_before(run, request, task, starts, students, recipe, console)
        report.write(path, students, rows, console, every=_distilled(run))
        return rows
    with open_run(path, run.config) as folder:
        teacher = _teacher(run, request, task, recipe, console)
        if teacher:
            compare_with_students(teacher, students, task, console)
        found = _teach(run, request, folder, starts, students, recipe, teacher, console)
        rows = _tested(found, folder, task, best_only=bool(request.sweep))
    report.write(path, students, rows, console, every=_distilled(load_run(path)))
    return rows


def _distilled(run: Run) -> list[Candidate]:
    return [r for r in run.rows if r.stage == "distill" and r.status == "trained"]


def refuse_unteachable(request: Request, task: Task, console: Console) -> None:
    """Refuses a request whose loss, options or teacher cannot be, whatever the students are; weights to download are fetched now.

    A teacher that is there already is fed a few validation images: what it scores is told, with a warning where that is little.

    Raises:
        NasError: says which.
    """
    kind, _, name = request.teacher.partition(":")
    if not any(lesson.teacher for lesson in _named_nets(request, task)):
        return
    if kind == "train":
        named_network(name, task)
        return
    teacher = open_teacher(resolve(request.teacher, task, arch=request.teacher_arch, norm=request.teacher_norm), task)
    compare_with_students(teacher, (), task, console, most=GLANCED)


def _named_nets(request: Request, task: Task) -> list[LessonConfig]:
    """The lessons by name alone: what can be refused before a teacher is trained, networks that train along and stray flags among it."""
    found = _lessons(request, _stand_in(request))
    refuse_unused(
        found, teacher=request.teacher, online=request.online, arch=request.teacher_arch, norm=request.teacher_norm,
        epochs=request.teacher_epochs,
    )  # fmt: skip
    for lesson in found:
        if lesson.online:
            named_network(lesson.online, task)
    return found


def _students(run: Run, request: Request, task: Task) -> list[Candidate]:
    """The candidates that are named, and published networks, which the run need not have."""
    others = [m for m in request.models if m.partition("@")[0] in BASELINES]
    ids = [m for m in request.models if m not in others]
    students = chosen(run, ids, with_weights=request.start == "run") if ids or not others else []
    if wrong := [s.name for s in students if s.stage == "distill"]:
        raise InvalidConfig(f"--model {wrong[0]} is distilled already; name its student, {wrong[0].partition('-')[0]}")
    if others and request.start != "scratch":
        wants = f"--start {request.start} wants weights of the run"
        raise InvalidConfig(f"{wants}, and {others[0]} is a published network" + (": name its id" if request.start == "run" else ""))
    for name in others:
        baseline = "{} x{:g}".format(*published(name))
        students.append(Candidate(stage="final", status="trained", arch=named_baseline(name, task), seed=0, baseline=baseline))
    return list({s.id: s for s in students}.values())


def _recipe(run: Run, request: Request) -> Recipe:
    recipe = recipe_for(run.config, request.epochs or run.config.final_epochs)
    return msgspec.structs.replace(recipe, lr=request.lr) if request.lr is not None else recipe


def _lessons(request: Request, teacher: TeacherSpec | None) -> list[LessonConfig]:
    return lessons(
        request.losses, settings=request.settings, sweep=request.sweep, teacher=teacher, online=request.online or _net_of(request),
        start=request.start,
    )  # fmt: skip


def _stand_in(request: Request) -> TeacherSpec | None:
    """The teacher by name alone: enough to tell which lessons need it."""
    return TeacherSpec(name=request.teacher, net="") if request.teacher else None


def _net_of(request: Request) -> str:
    """The network that an online teacher is by default: the fixed teacher's, where that can be built afresh by name."""
    kind, _, rest = request.teacher.partition(":")
    return rest if kind == "train" else request.teacher_arch or ""


def _teacher(run: Run, request: Request, task: Task, recipe: Recipe, console: Console) -> Teacher | None:
    """The opened teacher, trained here first where the user asks for that; None where no loss needs a fixed one."""
    if not any(lesson.teacher for lesson in _lessons(request, _stand_in(request))):
        return None
    kind, _, name = request.teacher.partition(":")
    if kind != "train":
        return open_teacher(resolve(request.teacher, task, arch=request.teacher_arch, norm=request.teacher_norm), task)
    own = recipe_for(msgspec.structs.replace(run.config, recipe=recipe), request.teacher_epochs or recipe.epochs)
    weights = trained_teacher(run, name, task, own, console, only_kept=request.shows)
    spec = resolve(f"file:{weights}", task, arch=name, norm="task")
    return open_teacher(msgspec.structs.replace(spec, name=request.teacher), task)


def _done_before(
    run: Run, request: Request, task: Task, starts: Starts, students: Sequence[Candidate], recipe: Recipe, console: Console
) -> list[Candidate]:  # fmt: skip
    """The rows that the run has of what is asked for; nothing is trained or written, so another process may be at it."""
    teacher = _teacher(run, request, task, recipe, console)
    jobs = _jobs(run, request, RunFolder(path=run.path, rows=run.rows), starts, students, recipe, teacher)
    console.say(f"{len(jobs.rows)} of {len(jobs.rows) + len(jobs)} trainings are done")
    if not jobs.rows:
        raise Stopped(f"{run.path} has nothing of this yet; leave out --show to train it")
    return jobs.rows


def _jobs(
    run: Run, request: Request, folder: RunFolder, starts: Starts, students: Sequence[Candidate], recipe: Recipe, teacher: Teacher | None
) -> DistillJobs:
    return DistillJobs(
        folder=folder, students=students, starts=starts, recipe=recipe,
        lessons=_lessons(request, teacher.spec if teacher else None),
        seeds=[proposal_seed(run.config.seed, FINAL_SEED + i) for i in range(request.seeds)],
        teacher=teacher.spec if teacher else None, cache=str(run.path.resolve() / "teachers") if request.keeps_logits else "",
        test=not request.sweep, lr=None if request.lr == run.config.recipe.lr else request.lr, wants_weights=not request.shows,
    )  # fmt: skip


def _teach(
    run: Run, request: Request, folder: RunFolder, starts: Starts, students: Sequence[Candidate], recipe: Recipe, teacher: Teacher | None,
    console: Console,
) -> list[Candidate]:  # fmt: skip
    executor = request.executor or run.config.executor
    config = msgspec.structs.replace(run.config, executor=executor)
    wanted = _lessons(request, teacher.spec if teacher else None)
    stories: set[str] = set()
    jobs = _jobs(run, request, folder, starts, students, recipe, teacher)
    workers = workers_of(msgspec.structs.replace(config, workers=request.workers or config.workers))
    many = f"{_many(len(students), 'student')} x {_many(len(wanted), 'lesson')} x {_many(request.seeds, 'seed')}"
    console.say(
        f"plan     {many}, {_many(recipe.epochs, 'epoch')} each: "
        f"{_many(len(jobs), 'training')} to do, {len(jobs.rows)} done before, {workers} at a time"
    )
    if left := _expected_seconds(students, recipe, len(jobs) / len(students)):
        more = ", and the teacher's on top" if any(x.teacher or x.online for x in wanted) else ""
        console.say(f"time     ~{duration(left / workers)}{more}; Ctrl-C keeps what is finished")
    if len(jobs):
        with console.progress(len(jobs), "trained") as tick:

            def told(row: Candidate, story: str) -> None:
                tick(_line(row))
                if row.lesson and row.lesson.online and story:
                    story = f"{row.baseline or row.id}: {story}"
                if story and story not in stories:
                    stories.add(story)
                    console.say(story)

            jobs.on_row = told
            if request.start == "bank":
                starts.write(jobs.archs)
            EXECUTORS[executor](jobs, config, workers=workers)
    if lost := sum(not (folder.path / r.weights).exists() for r in jobs.rows):
        console.say(
            f"{lost} of {len(jobs.rows)} have their scores, and weights no more: nothing of them can be exported; to train one again, "
            f"remove its row from {run.path}/candidates.jsonl"
        )
    for row in jobs.failed:
        console.warn(f"{row.name} ({label(row.lesson) if row.lesson else ''}) failed: {row.error.strip().splitlines()[-1]}")
    if not jobs.rows:
        raise Stopped(f"every training failed; candidates.jsonl in {run.path} has the tracebacks")
    return jobs.rows


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _expected_seconds(students: Sequence[Candidate], recipe: Recipe, trainings_each: float) -> float:
    """What plain trainings of the students would take on one worker, by the run's own; 0 where it does not say."""
    return sum(s.seconds / s.epochs * recipe.epochs for s in students if s.epochs) * trainings_each


def _line(row: Candidate) -> str:
    what = f"{row.baseline or row.id} {label(row.lesson) if row.lesson else ''}"
    return f"{what} valid {row.score:.3f}" if row.score is not None else f"{what} failed: {row.error.strip().splitlines()[-1][:100]}"


def _tested(rows: Sequence[Candidate], folder: RunFolder, task: Task, *, best_only: bool) -> list[Candidate]:
    """The rows, scored on test where a sweep before left that out.

    ``best_only``: the best lesson of each student and loss, chosen on valid, so that test chooses nothing.
    """
    from nas.models import build

    wanted = {r.name for r in (report.best_lessons(rows) if best_only else rows)}
    found = []
    for row in rows:
        if row.name in wanted and row.test_score is None:
            network = build(row.arch)
            network.load_state_dict(load(folder.path / row.weights))
            judged = judge(network, task, "test", temperature=row.calibration.temperature if row.calibration else None)
            row = msgspec.structs.replace(row, test_score=judged.score, test_calibration=judged.calibration)
            folder.append(row)
        found.append(row)
    return found
