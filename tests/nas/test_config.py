import math
from pathlib import Path

import click
import msgspec
import pytest

from nas.config import DEFAULT_W, RESUMABLE, RunConfig, config_from_file, config_from_table, fields_of_file, parse_duration_s
from nas.errors import InvalidConfig
from nas.jobs import plan_for
from nas.search import FLAGS, main
from nas.tasks import DATASETS
from search_spaces import SPACES


def written(folder: Path, text: str, name: str = "c.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("90", 90), ("2d", 172_800), (" 1M ", 60)]
)
def test_duration_is_its_units_summed(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "10x", "-5m", "0", "0s", "5 m 3", "m", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="not a duration"):
        parse_duration_s(text)


def test_config_survives_its_own_file(tmp_path: Path) -> None:
    config = RunConfig(max_ms=1.5, reward="soft", target_ms=2.0, baselines=("mnasnet_a1",), budget_s=60.0)
    path = written(tmp_path, msgspec.json.encode(config).decode(), "config.json")
    assert config_from_file(path, {}) == config


def test_fields_of_a_file_are_those_that_it_sets(tmp_path: Path) -> None:
    assert fields_of_file(written(tmp_path, 'budget = "10m"\ndevice = "local"\nepochs = 3')) == {"budget_s", "devices", "epochs"}


def test_toml_may_say_budget_in_words(tmp_path: Path) -> None:
    assert config_from_file(written(tmp_path, 'budget = "10m"'), {}).budget_s == 600.0


def test_toml_may_hold_a_recipe(tmp_path: Path) -> None:
    assert config_from_file(written(tmp_path, "[recipe]\nlr = 0.02"), {}).recipe.lr == 0.02


@pytest.mark.parametrize(
    ("text", "warmup"), [("[bank.recipe]\nwarmup_epochs = 4", 4), ("bank_epochs = 9\n[bank.recipe]\nwarmup_epochs = 4.5", 4.5)]
)
def test_warm_up_is_not_held_against_epochs_that_nobody_set(tmp_path: Path, text: str, warmup: float) -> None:
    (tmp_path / "run.toml").write_text(text)
    found = config_from_file(tmp_path / "run.toml", {})
    assert plan_for(found).recipe.warmup_epochs == warmup
    assert plan_for(found).recipe.epochs == found.bank_epochs


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    config = config_from_file(written(tmp_path, "trials = 7\nepochs = 2"), {"trials": 9})
    assert (config.trials, config.epochs) == (9, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trails = 5", r"c\.toml.*trails.*did you mean 'trials'"),
        ("[recipe]\nlabel_smothing = 0.1", r"c\.toml.*label_smothing.*did you mean 'label_smoothing'"),
        ('trials = "many"', r"c\.toml.*int.*trials"),
        ("trials = 0", r"c\.toml.*--trials must be a positive number, got 0"),
        ('reward = "best"', r"c\.toml.*best"),
        ("[recipe]\nlr = -1", r"c\.toml.*recipe.*lr"),
        ("trials = ", r"c\.toml"),
        ('budget = "soon"', r"not a duration: 'soon'"),
    ],
)
def test_mistake_in_a_file_names_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        config_from_file(written(tmp_path, text), {})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"cannot read .*nowhere\.toml"):
        config_from_file(tmp_path / "nowhere.toml", {})


def test_json_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="table of settings"):
        config_from_file(written(tmp_path, "[1, 2]", "c.json"), {})


@pytest.mark.parametrize("field", ["width", "threads", "epochs", "final_epochs", "trials", "front_size", "max_ms", "budget_s", "workers"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_and_limits_must_be_positive(field: str, value: float) -> None:
    with pytest.raises(InvalidConfig, match=field.split("_")[0]):
        config_from_table({field: value})


@pytest.mark.parametrize("field", ["width", "target_ms", "max_ms", "budget_s"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_numbers_must_be_finite(field: str, value: float) -> None:
    with pytest.raises(InvalidConfig):
        config_from_table({field: value})


@pytest.mark.parametrize("reward", ["soft", "hard", "abs"])
def test_scalar_rewards_need_a_target(reward: str) -> None:
    with pytest.raises(InvalidConfig, match=f"--reward {reward} needs --target-ms"):
        config_from_table({"reward": reward})


@pytest.mark.parametrize("reward", ["pareto", "hard"])
def test_w_is_refused_where_it_means_nothing(reward: str) -> None:
    with pytest.raises(InvalidConfig, match=f"--w belongs to --reward soft or abs, not to {reward}"):
        config_from_table({"reward": reward, "target_ms": 1.0, "w": -0.1})


@pytest.mark.parametrize(("reward", "w"), [("soft", -0.07), ("abs", -0.10)])
def test_default_w_is_the_published_one(reward: str, w: float) -> None:
    config = config_from_table({"reward": reward, "target_ms": 1.0})
    assert config.exponent == DEFAULT_W[reward] == w


def test_own_w_wins_over_the_default() -> None:
    assert config_from_table({"reward": "soft", "target_ms": 1.0, "w": -0.2}).exponent == -0.2


def test_resumable_fields_are_fields() -> None:
    assert set(RunConfig.__struct_fields__) >= RESUMABLE


def options() -> dict[str, click.Option]:
    return {p.name: p for p in main.params if isinstance(p, click.Option) and p.name}


def test_every_flag_is_a_field() -> None:
    assert set(options()) - {"config_file", "out", "budget", "device_wait", "help"} <= set(RunConfig.__struct_fields__)
    assert len(FLAGS) == len(options())


@pytest.mark.parametrize("field", ["space", "width", "task", "data", "data_root", "devices", "threads", "sampler", "reward", "epochs",
                                   "final_epochs", "trials", "front_size", "baseline_widths", "executor", "seed"])  # fmt: skip
def test_default_in_the_help_is_the_fields_own(field: str) -> None:
    default = getattr(RunConfig(), field)
    shown = f"{default:g}" if isinstance(default, float) else " ".join(default) if isinstance(default, tuple) else str(default)
    assert str(options()[field].help).endswith(f"[{shown}]")


def test_help_names_every_space_and_data_set() -> None:
    assert not [name for name in SPACES if name not in str(options()["space"].help)]
    assert not [name for name in DATASETS if name not in str(options()["data"].help)]


@pytest.mark.parametrize("written", ['device = "fake"', 'devices = ["fake"]', 'device = ["fake"]'])
def test_device_may_be_written_as_one_or_as_a_list(tmp_path: Path, written: str) -> None:
    (tmp_path / "c.toml").write_text(written)
    assert config_from_file(tmp_path / "c.toml", {}).devices == ("fake",)


def test_configuration_of_an_older_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"device": "local", "trials": 3}')
    assert config_from_file(tmp_path / "config.json", {"trials": 4}) == RunConfig(devices=("local",), trials=4)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("0s", 0.0), ("15m", 900.0)])
def test_wait_for_a_device_may_be_none(tmp_path: Path, text: str, seconds: float) -> None:
    (tmp_path / "c.toml").write_text(f'device_wait = "{text}"')
    assert config_from_file(tmp_path / "c.toml", {}).device_wait_s == seconds


def test_search_without_a_device_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="devices must name at least one"):
        RunConfig(devices=())
