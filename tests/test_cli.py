"""The command `emollm`: what a user types, and what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import emollm
from emollm.commands.cli import COMMANDS, main
from emollm.core.errors import ConfigError, DataError, EmollmError, ResourceError
from emollm.core.tasks import select_tasks
from emollm.scoring.columns import PLAIN
from tests.commands import refused
from tests.conftest import ROOT

POSTS = 'day,id,text\n2026-03-01,a,"What a day, so happy :)"\n2026-03-02,b,the train is late AGAIN\n2026-03-02,c,\n'


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    folder = tmp_path / "meine Beiträge"
    folder.mkdir()
    path = folder / "pösts.csv"
    path.write_text(POSTS, encoding="utf-8")
    return path


def emollm_fails(*argv: str) -> str:
    """The one line of a command that a user got wrong."""
    ran = subprocess.run([sys.executable, "-m", "emollm", *argv], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    [line] = ran.stderr.splitlines()
    return line.removeprefix("error: ")


def test_help_and_version_load_no_library(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from emollm.commands.cli import main; main(['--help']); main(['--version'])\n"
        "print(sorted({'torch', 'ray', 'numpy', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    *shown, version, loaded = ran.stdout.splitlines()
    assert version == f"emollm {emollm.__version__}" and loaded == "[]"
    assert all(any(line.split()[:1] == [name] for line in shown) for name in COMMANDS)
    assert "exit codes:" in shown


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.options])
def test_each_command_tells_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: emollm {name}")
    assert "tuple[" not in shown, "values are named, not Python's types"


def test_a_wrong_command_is_one_line_with_a_hint() -> None:
    assert emollm_fails("anotate", "posts.csv").startswith("unknown command 'anotate'; did you mean annotate?")
    assert emollm_fails("annotate", "nowhere.csv") == "no input at nowhere.csv"
    with pytest.raises(ConfigError, match="did you mean --tasks"):
        main(["text", "hello", "--task", "V-reg"])


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    told = refused(lambda _argv: print(import_module("fastapi")))
    assert told == "error: fastapi is not installed; run: pip install 'emollm[serve]'"


def test_an_output_that_nobody_reads_to_its_end_is_no_error(model_directory: Path) -> None:
    command = f"{sys.executable} -u -m emollm text --json --model {model_directory} --tasks V-reg"
    lines = "".join(f"so happy {n}\n" for n in range(200))
    ran = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"], input=lines, cwd=ROOT, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (141, "") and json.loads(ran.stdout)["text"] == "so happy 0"


def test_text_is_a_picture_or_json(model_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--model", str(model_directory), "--tasks", "V-reg,E-c"]
    main(["text", "[bold]so, so happy[/bold] :)", *common])
    shown = capsys.readouterr().out
    assert "[bold]so, so happy[/bold] :)" in shown and "valence   " in shown and "emotions " in shown
    main(["text", *common, "--json", "so, so happy"])
    row = json.loads(capsys.readouterr().out)
    assert row["text"] == "so, so happy" and 0 <= row["v_reg"] <= 1 and isinstance(row["e_c"], list)


def test_without_a_text_each_line_of_the_input_is_one(
    model_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("glad\n\nsad\n"))
    main(["text", "--json", "--model", str(model_directory), "--tasks", "V-reg"])
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["glad", "sad"]


def test_annotate_writes_a_file_beside_the_input(posts: Path, model_directory: Path) -> None:
    main(["annotate", str(posts), "--model", str(model_directory), "--tasks", "V-oc"])
    found = pq.read_table(posts.with_name("pösts.affect.parquet"))
    asked = [field.name for field in PLAIN.fields(select_tasks(["V-oc"]))]
    assert found.column_names == ["id", "text", "day", *asked]
    rows = found.to_pylist()
    assert [row["id"] for row in rows] == ["a", "b", "c"] and [row["day"][-2:] for row in rows] == ["01", "02", "02"]
    assert [row["error"] for row in rows] == [None, None, "empty_text"]
    assert [row["v_oc"] is None for row in rows] == [False, False, True]
    assert {path.name for path in posts.parent.iterdir()} == {"pösts.csv", "pösts.affect.parquet"}


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_annotate_writes_other_formats(posts: Path, model_directory: Path, name: str) -> None:
    out = posts.with_name(name)
    main(["annotate", str(posts), str(out), "--model", str(model_directory), "--tasks", "V-oc,E-c"])
    if name.endswith("csv"):
        table = pa.csv.read_csv(out)
        emotions = (table["e_c"][0].as_py() or "").split(", ")
    else:
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        table, emotions = pa.Table.from_pylist(rows), rows[0]["e_c"]
    assert table["id"].to_pylist() == ["a", "b", "c"]
    assert set(emotions) <= {*select_tasks(["E-c"])[0].labels, ""}
    with pytest.raises(ConfigError, match="--overwrite"):
        main(["annotate", str(posts), str(out), "--model", str(model_directory)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["POSTS", "POSTS", "--overwrite"], "pösts.csv is the input; name another file"),
        (["POSTS", "OUT.xlsx"], r"OUT\.xlsx: files end in \.parquet, \.csv or \.jsonl; a folder has no ending"),
        (["POSTS", "--out", ""], "^--out is empty$"),
        (["POSTS", "--tasks", "V-rge"], r"did you mean V-reg\? choose from"),
        (["POSTS", "--model", "minilm-afect"], r"did you mean minilm-affect\? train one, or"),
        (["http://127.0.0.1/p.csv", "OUT"], "no address that can be read; give a path, or one of s3://"),
        (["POSTS", "--device", "cuda"], "sees no GPU here; use --device cpu"),
    ],
)
def test_a_mistake_of_annotate_is_named(
    posts: Path, argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = posts.read_bytes()
    given = [word.replace("POSTS", str(posts)).replace("OUT", str(posts.with_name("OUT"))) for word in argv]
    with pytest.raises(EmollmError, match=message):
        main(["annotate", *given])
    assert list(posts.parent.iterdir()) == [posts] and posts.read_bytes() == before


def test_a_place_that_cannot_be_written_is_one_line(posts: Path, model_directory: Path) -> None:
    out = posts.with_name("a file") / "out.csv"
    out.parent.touch()
    with pytest.raises(ResourceError, match=r"cannot write .*a file/out\.csv: "):
        main(["annotate", str(posts), str(out), "--model", str(model_directory), "--tasks", "V-oc"])


def test_annotate_refuses_what_does_not_go_together(posts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--out is required"):
        main(["annotate", str(posts.parent)])
    with pytest.raises(ConfigError, match=r"--format is for a file.*end it in \.csv"):
        main(["annotate", str(posts), str(tmp_path / "folder"), "--format", "csv"])
    with pytest.raises(ConfigError, match="--no-ray writes a file"):
        main(["annotate", str(posts), str(tmp_path / "folder"), "--no-ray"])
    (tmp_path / "none.txt").touch()
    with pytest.raises(DataError, match="holds no posts"):
        main(["annotate", str(tmp_path / "none.txt")])


def test_annotate_keeps_a_row_that_is_broken_and_types_of_json(tmp_path: Path, model_directory: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "glad", "likes": 3}\nnot json\n{"text": "sad", "likes": null}\n')
    main(["annotate", str(path), "--model", str(model_directory), "--tasks", "V-oc"])
    rows = pq.read_table(tmp_path / "p.affect.parquet").to_pylist()
    assert [row["likes"] for row in rows] == [3, None, None]
    assert [(row["error"] or "").partition(":")[0] for row in rows] == ["", "malformed_row", ""]
    assert rows[0]["id"].startswith("p.jsonl:1:")


@pytest.mark.slow
def test_processes_answer_as_one_does(tmp_path: Path, model_directory: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("".join(f"post number {n}, fine\n" for n in range(130)))
    common = ["annotate", str(path), "--model", str(model_directory), "--tasks", "V-reg"]
    main([*common, str(tmp_path / "1.parquet"), "--processes", "1"])
    main([*common, str(tmp_path / "2.parquet"), "--processes", "2"])
    one, two = (pq.read_table(tmp_path / f"{n}.parquet") for n in "12")
    assert one["id"].equals(two["id"])
    assert one["v_reg"].to_pylist() == pytest.approx(two["v_reg"].to_pylist(), abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1,glad\n,sad\n", r"1 posts have no id, such as p\.csv:3; fix"),
        ("1,glad\n1,sad\n", "1 ids occur more than once"),
    ],
)
def test_annotate_refuses_ids_as_the_job_does(tmp_path: Path, model_directory: Path, rows: str, said: str) -> None:
    (tmp_path / "p.csv").write_text("id,text\n" + rows)
    common = ["--model", str(model_directory), "--tasks", "V-oc"]
    with pytest.raises(DataError, match=said):
        main(["annotate", str(tmp_path / "p.csv"), *common])
    main(["annotate", str(tmp_path / "p.csv"), *common, "--id-column", ""])
    assert len(set(pq.read_table(tmp_path / "p.affect.parquet")["id"].to_pylist())) == 2


@pytest.mark.ray
def test_with_ray_the_file_holds_the_same(local_ray: None, posts: Path, model_directory: Path) -> None:
    posts.write_text(POSTS.rpartition("2026")[0], encoding="utf-8")
    common = ["annotate", str(posts), "--model", str(model_directory), "--tasks", "V-reg", "--carry", "day"]
    main([*common, str(posts.with_name("alone.parquet"))])
    main([*common, str(posts.with_name("ray.parquet")), "--ray", "--cluster.num-workers", "1"])
    alone, ray = (pq.read_table(posts.with_name(f"{name}.parquet")) for name in ("alone", "ray"))
    assert alone.schema.equals(ray.schema)
    assert alone.drop_columns(["v_reg", "v_reg_std", "v_reg_confidence"]).equals(
        ray.drop_columns(["v_reg", "v_reg_std", "v_reg_confidence"])
    )
    assert alone["v_reg"].to_pylist() == pytest.approx(ray["v_reg"].to_pylist(), abs=1e-6)
    assert sorted(path.name for path in posts.parent.iterdir()) == ["alone.parquet", "pösts.csv", "ray.parquet"]


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    shown = capsys.readouterr().out
    assert "smollm2-135m-heads" in shown and "llama-2-7b-chat" in shown


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    asks = 'COMP_WORDS=({}); COMP_CWORD={}; _emollm; echo "${{COMPREPLY[*]}}"\n'
    script += asks.format("emollm ann", 1) + asks.format("emollm train --cluster.num", 2)
    ran = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["annotate", "--cluster.num-workers"]
    with pytest.raises(ConfigError, match="bash, zsh or fish"):
        main(["completion", "tcsh"])
