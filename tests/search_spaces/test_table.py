"""Spaces from TOML files, and what is said about mistakes in them."""

from pathlib import Path

import pytest

from search_spaces import Edge, Head, InvalidSpace, Stage, from_toml, open_space

GOOD = """
[stem]
out_ch = 16
kernel = 3

[[stages]]
name = "s1"
out_ch = 16
op = "sepconv"

[[stages]]
name = "s2"
out_ch = 24
stride = 2
op = ["conv", "mbconv3"]
kernel = [3, 5]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_read_as_the_tables_write_them(tmp_path: Path) -> None:
    space = from_toml(written(tmp_path, GOOD))
    assert (space.name, space.stem, space.stages) == (
        "mine",
        Edge(out_ch=16, kernel=3),
        (
            Stage(name="s1", out_ch=16, op=("sepconv",)),
            Stage(name="s2", out_ch=24, stride=2, op=("conv", "mbconv3"), kernel=(3, 5)),
        ),
    )


def test_shipped_example_loads_and_decodes() -> None:
    space = open_space(Path(__file__).parents[2] / "docs" / "my_space.toml", width=0.5, input_chw=(3, 32, 32))
    assert space.decode(space.corners()[1], Head(outputs=2)).head.width_ch == 64


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("kernel = [3, 5]", "kernel = [3, 4]", r"stages row 2 \('s2'\): kernel: 4 is not allowed \(allowed: odd"),
        ("kernel = [3, 5]", "kernel = []", r"stages row 2 \('s2'\): kernel: \[\] is not allowed \(allowed: a menu has at least one"),
        ("kernel = [3, 5]", "kernel = [3, 3]", r"stages row 2 \('s2'\): kernel: \[3, 3\] is not allowed"),
        ("kernel = [3, 5]", 'kernel = "big"', r"stages row 2 \('s2'\): kernel: expected `int`, got `str` \(allowed: odd"),
        ("kernel = [3, 5]", "kernle = 3", r"stages row 2 \('s2'\): unknown field 'kernle'; did you mean 'kernel'"),
        ("kernel = [3, 5]", "width = [0.0]", r"stages row 2 \('s2'\): width: 0.0 is not allowed \(allowed: numbers above 0"),
        ("kernel = [3, 5]", "width = nan", r"stages row 2 \('s2'\): width: nan is not allowed"),
        ("kernel = [3, 5]", "expand = [6]", r"stages row 2 \('s2'\): expand: \[6.0\] is not allowed"),
        ("kernel = [3, 5]", 'act = "gelu"', r"stages row 2 \('s2'\): act: .*'gelu' \(allowed: relu, relu6"),
        ("kernel = [3, 5]", 'vary = "layer"', r"stages row 2 \('s2'\): vary: .*'layer' \(allowed: stage or block"),
        ("stride = 2", "stride = 3", r"stages row 2 \('s2'\): stride: .*3 \(allowed: 1 or 2"),
        ("stride = 2", "depth = true", r"stages row 2 \('s2'\): depth: expected `int`, got `bool`"),
        ('op = "sepconv"', 'op = "sepcnv"', r"stages row 1 \('s1'\): op: 'sepcnv' is not allowed \(allowed: conv, sepconv"),
        ('op = "sepconv"', 'op = "mbconv' + "9" * 400 + '"', r"stages row 1 \('s1'\): op: 'mbconv9+' is not allowed"),
        ("kernel = [3, 5]", "kernel = [3, 100001]", r"stages row 2 \('s2'\): kernel: 100001 is not allowed"),
        ("kernel = [3, 5]", "width = 1e300", r"stages row 2 \('s2'\): width: 1e\+300 is not allowed"),
        ('op = "sepconv"', 'op = "mbconv"', r"stages row 1 \('s1'\): expand: \[\] is not allowed"),
        ('op = "sepconv"', "", r"stages row 1 \('s1'\): op: is missing \(allowed: conv"),
        ('name = "s1"', "", r"stages row 1: name: is missing"),
        ('name = "s2"', 'name = "s1"', r"mine.toml: stages: name: every row's must be its own, and row 2 \('s1'\)"),
        ("kernel = 3", "kernel = 2", r"mine.toml: stem: kernel: 2 is not allowed"),
        ("kernel = 3", "kernal = 3", r"mine.toml: stem: unknown field 'kernal'; did you mean 'kernel'"),
        ("[stem]", "[stemm]", r"mine.toml: unknown field 'stemm'; did you mean 'stem'"),
        ("\n[stem]\nout_ch = 16\nkernel = 3\n", "", r"mine.toml: stem: write a \[stem\] table"),
        ("\n[stem]\nout_ch = 16\nkernel = 3\n", "stem = 16\n", r"mine.toml: stem: write a \[stem\] table"),
        ("\n[stem]", 'se_rule = "mnas"\n[stem]', r"mine.toml: se_rule: .*'mnas' \(allowed: mnasnet or mobilenetv3"),
        ("\n[stem]", "width_mult = 0.5\n[stem]", r"mine.toml: unknown field 'width_mult'"),
        ("out_ch = 24", "out_ch = ", r"mine.toml: not TOML: .*at line 13"),
    ],
)
def test_mistake_names_file_row_and_field(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    assert right in GOOD
    with pytest.raises(InvalidSpace, match=said):
        from_toml(written(tmp_path, GOOD.replace(right, wrong)))


def test_mistake_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpace) as caught:
        from_toml(written(tmp_path, GOOD.replace("stride = 2", "stride = 3")))
    assert "\n" not in str(caught.value)


def test_file_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpace, match=r"mine.toml: stages: write at least one \[\[stages\]\] row"):
        from_toml(written(tmp_path, "[stem]\nout_ch = 8\n"))


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpace, match=r"gone.toml: cannot be read: no such file"):
        open_space(tmp_path / "gone.toml")


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpace, match="not TOML"):
        from_toml(tmp_path / "mine.toml")
