"""`emollm release`: data, card and checksums."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.commands.release import main
from emollm.core.errors import DataError
from emollm.study.release import ReleaseConfig, hashed, release
from tests.commands import refused
from tests.study.annotated import corpus


def test_a_release_is_checked_by_its_sums_and_says_what_it_is(tmp_path: Path) -> None:
    path = corpus(tmp_path / "moods.parquet", np.eye(3), lang=["en", "pt", "en"])
    release(ReleaseConfig(output=str(path), out=tmp_path / "out", licence="CC-BY-4.0", keep=("lang",)))
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count("OK") == 2
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "# moods\n" in card and "license: cc-by-4.0" in card and "anger, joy, sadness" in card and "n<1K" in card
    table = pq.read_table(tmp_path / "out" / "data")
    assert table.column_names[:3] == ["id", "text", "lang"] and table["id"].to_pylist() == ["p0", "p1", "p2"]


def test_texts_and_ids_stay_at_home_on_request(tmp_path: Path) -> None:
    path = corpus(
        tmp_path / "a.parquet", np.eye(3), texts=["secret words"] * 3, ids=["p1#1", "p1#2", "q"], author=["ann"] * 3
    )
    table = pq.read_table(path)
    errors = pa.array(["scoring_failed: near 'secret words'", None, None])
    pq.write_table(table.set_column(table.schema.get_field_index("error"), "error", errors), path)
    config = ReleaseConfig(
        output=str(path), out=tmp_path / "out", texts=False, ids="hashed", salt=tmp_path / "salt.txt"
    )
    release(config)
    found = pq.read_table(tmp_path / "out" / "data")
    assert "text" not in found.column_names and "author" not in found.column_names
    assert found["error"].to_pylist() == ["scoring_failed", None, None]
    first, second, third = found["id"].to_pylist()
    assert first.endswith("#1") and second == first[:-1] + "2" and len(third) == 32 and third != first[:32]
    salt = (tmp_path / "salt.txt").read_bytes()
    assert third == hashed("q", salt) != hashed("q", b"another salt of some length")
    assert (tmp_path / "salt.txt").stat().st_mode & 0o777 == 0o600
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            assert b"secret" not in file.read_bytes() and salt not in file.read_bytes()
    plain = hashlib.sha256(b"q").hexdigest()
    assert third != plain[:32]
    release(config.model_copy(update={"out": tmp_path / "again"}))  # the same salt gives the same ids
    assert pq.read_table(tmp_path / "again" / "data")["id"].to_pylist() == [first, second, third]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ids", "hashed"], "needs a file for its salt"),
        (["--salt", "SALT"], "needs a file for its salt"),
        (["--ids", "hashed", "--salt", "OUT/salt"], "lies in the release itself"),
        (["--keep", "nation"], "has no column 'nation' for --keep"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    path = corpus(tmp_path / "a.parquet", np.eye(3))
    out = tmp_path / "out"
    words = [word.replace("OUT", str(out)).replace("SALT", str(tmp_path / "salt")) for word in options]
    assert message in refused(main, str(path), str(out), *words)
    assert not out.exists()


def test_a_short_salt_is_refused(tmp_path: Path) -> None:
    path = corpus(tmp_path / "a.parquet", np.eye(3))
    (tmp_path / "salt").write_text("pepper", encoding="utf-8")
    with pytest.raises(DataError, match="holds 6 bytes; with fewer than 16 ids can be guessed"):
        release(ReleaseConfig(output=str(path), out=tmp_path / "out", ids="hashed", salt=tmp_path / "salt"))
