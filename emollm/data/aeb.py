"""The AEB benchmark from official or published files: what `emollm build-data aeb` runs.

Texts and golds are those of the published benchmark, including the spelling; wordings are ours unless imported. One
row per example, in the order of its source; golds are in the task's own range (`value`), in 0..1 (`unit`) or
as `labels`; see `instructions.SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from emollm.core.errors import DataError
from emollm.core.folders import check_new
from emollm.core.tasks import TASKS
from emollm.data.aaid import BuildConfig, compare, settle_bad, template_files, with_templates, write_folder
from emollm.data.corpora.emobank import read_emobank
from emollm.data.corpora.example import BadRow, Example
from emollm.data.corpora.goemotions import as_csv_cell, read_goemotions
from emollm.data.corpora.published import published_files, read_published
from emollm.data.corpora.rows import find_file
from emollm.data.corpora.semeval import read_semeval
from emollm.data.corpora.sst import DISTRIBUTION, brackets, has_scores, read_sst
from emollm.data.corpora.tdt import read_tdt
from emollm.data.corpora.vader import FILES as VADER_FILES
from emollm.data.corpora.vader import read_vader
from emollm.data.instructions import build_rows, read_rows
from emollm.data.manifest import describe_wording, file_hashes


@dataclass(frozen=True, slots=True)
class Part:
    """One of the benchmark's fourteen tasks: a file of the folder."""

    name: str
    questions: Mapping[str, int]
    """Published rows per question."""
    option: str
    """The option that names its official files."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(question.partition(".")[0] for question in self.questions))


_EMOTIONS = {"anger": 1002, "fear": 986, "joy": 1105, "sadness": 975}
VADER_ROWS = 1000

# 30,808 rows in all.
AEB = (
    Part("EI-reg", {f"EI-reg.{emotion}": rows for emotion, rows in _EMOTIONS.items()}, "semeval"),
    Part("EI-oc", {f"EI-oc.{emotion}": rows for emotion, rows in _EMOTIONS.items()}, "semeval"),
    Part("V-reg", {"V-reg": 937}, "semeval"),
    Part("V-oc", {"V-oc": 937}, "semeval"),
    Part("E-c", {"E-c": 3259}, "semeval"),
    Part("TDT", {"TDT": 692}, "tdt"),
    Part("SST", {"SST": 2210}, "sst"),
    Part("SST5", {"SST5": 2210}, "sst"),
    Part("EmoBank", {"EmoBank-V": 1000, "EmoBank-A": 1000, "EmoBank-D": 1000}, "emobank"),
    Part("GoEmotions", {"GoEmotions": 5427}, "goemotions"),
    *(Part(name, {name: VADER_ROWS}, "vader") for name in VADER_FILES),
)
GOEMOTIONS_28 = Part("GoEmotions-28", {"GoEmotions-28": 5427}, "goemotions")


class AebConfig(BuildConfig):
    """Build the AEB benchmark, one Parquet file per task, from the official files, the published ones, or both."""

    semeval: Path | None = None
    """Folder of SemEval-2018 Task 1 with its English test files (with gold)."""
    sst: Path | None = None
    """Folder of the Stanford Sentiment Treebank; the trees give SST5, the distribution SST5 and SST."""
    tdt: Path | None = None
    """Folder with TDT's test.raw."""
    with_target: bool = False
    """Say TDT's target beside the text, as the published benchmark does not."""
    emobank: Path | None = None
    """emobank.csv or its folder."""
    goemotions: Path | None = None
    """Folder with GoEmotions' test.tsv."""
    vader: Path | None = None
    """Folder of VADER's four human-rated sets; without the published files 1,000 rows of each are drawn."""
    published: Path | None = None
    """Folder of the published JSON lines, for tasks without official files and for the selection of VADER's rows."""
    allow_missing: bool = False
    """Build the tasks of the given sources and name the others; otherwise all fourteen tasks are required."""
    goemotions_28: bool = False
    """Also write GoEmotions with its own 28 labels, a fifteenth file."""
    templates: Path | None = None
    """A published file, or a folder of them, whose wordings are used instead of ours. Its EmoBank and VADER
    wordings ask for the corpus's own range, on which models that answer in 0..1 fail."""
    wording: Literal["drawn", "first"] = "drawn"
    """Draw one of a task's wordings for each row, as published; otherwise always use the first."""
    against: Path | None = None
    """A data folder: the card counts its training texts that are in this benchmark too."""


def build_aeb(config: AebConfig) -> dict[str, pa.Table]:
    """Write the benchmark folder; return its tables by part. Raises DataError naming all missing parts."""
    check_new(config.out.absolute(), overwrite=config.overwrite)
    against = {"train": read_rows(config.against, "train")} if config.against else None
    bad: list[BadRow] = []
    parts = [*AEB, GOEMOTIONS_28] if config.goemotions_28 else list(AEB)
    examples = {name: found for name, found in _read_parts(config, parts, bad).items() if found}
    settle_bad(bad, skip=config.skip_bad)
    missing = {part.name: part.option for part in parts if part.name not in examples}
    if not examples or (missing and not config.allow_missing):
        lacking = ", ".join(sorted({f"--{option}" for option in missing.values()}))
        raise DataError(
            f"no rows for {', '.join(missing)}: give {lacking} or --published, or build the rest with --allow-missing"
        )
    used = {example.task for found in examples.values() for example in found}
    # The fifteenth file was never published, so it has wordings of ours only.
    extra = used & set(GOEMOTIONS_28.questions)
    tasks = with_templates(TASKS, config.templates, used=used - extra) | {name: TASKS[name] for name in extra}
    if config.wording == "first":
        examples = {
            name: [replace(example, template=tasks[example.task].templates[0]) for example in found]
            for name, found in examples.items()
        }
    tables = {
        name: build_rows(found, seed=config.seed, templates_per_example=1, tasks=tasks, shuffle=False)
        for name, found in examples.items()
    }
    files = {example.path for found in examples.values() for example in found} | {row.path for row in bad}
    if config.sst and has_scores(config.sst):
        files |= {str(find_file(config.sst, name)) for name in DISTRIBUTION}
    options = ("semeval", "sst", "tdt", "emobank", "goemotions", "vader", "published", "templates")
    roots: dict[str, Path | None] = {option: getattr(config, option) for option in options}
    own_range = [t.name for t in tasks.values() if t.low is not None and (t.low, t.high) != (0.0, 1.0)]
    write_folder(
        config,
        job="aeb",
        tables=tables,
        tasks=tasks.values(),
        bad=bad,
        facts={
            "files": file_hashes([*files, *template_files(config.templates)], roots=roots),
            "wording": {**describe_wording(tasks.values(), config.templates), "chosen": config.wording},
            "asked_in_own_range": own_range if config.templates else [],
            "missing": list(missing),
            "differs_from_published": {
                part.name: difference
                for part in parts
                if part.name in examples and (difference := compare(examples[part.name], part.questions, "published"))
            },
        },
        against=against,
    )
    return tables


def _read_parts(config: AebConfig, parts: list[Part], bad: list[BadRow]) -> dict[str, list[Example]]:
    """Each part from its official files, else from the published ones; empty if neither has it."""
    published = _read_published(config, bad) if config.published else []
    semeval = read_semeval(config.semeval, "test", bad=bad) if config.semeval else []
    readers = _official_readers(config, bad)
    found: dict[str, list[Example]] = {}
    for part in parts:
        released = [example for example in published if example.task in part.tasks]
        official = [example for example in semeval if example.task in part.tasks]
        # Only the published file shows which thousand rows of a VADER set are in the benchmark.
        if part.name in readers and not (part.option == "vader" and released):
            official = readers[part.name]()
        found[part.name] = official or released
    return found


def _official_readers(config: AebConfig, bad: list[BadRow]) -> dict[str, Callable[[], list[Example]]]:
    """A reader for each part whose official files are given, with the spelling of the published benchmark."""
    readers: dict[str, Callable[[], list[Example]]] = {}
    if sst := config.sst:
        if has_scores(sst):
            readers["SST"] = lambda: respell(read_sst(sst, "test", task_name="SST", bad=bad), brackets)
        readers["SST5"] = lambda: respell(read_sst(sst, "test", bad=bad), str.lower)
    if tdt := config.tdt:
        readers["TDT"] = lambda: read_tdt(tdt, "test", with_target=config.with_target, bad=bad)
    if emobank := config.emobank:
        readers["EmoBank"] = lambda: read_emobank(emobank, "test", bad=bad)
    if goemotions := config.goemotions:
        readers["GoEmotions"] = lambda: respell(read_goemotions(goemotions, "test", bad=bad), as_csv_cell)
        readers["GoEmotions-28"] = lambda: read_goemotions(goemotions, "test", task_name="GoEmotions-28", bad=bad)
    if vader := config.vader:
        for name in VADER_FILES:
            readers[name] = lambda name=name: _draw(read_vader(vader, name, bad=bad), name, config.seed)  # type: ignore[misc]
    return readers


def respell(examples: list[Example], spell: Callable[[str], str]) -> list[Example]:
    return [replace(example, text=spell(example.text)) for example in examples]


def _draw(examples: list[Example], name: str, seed: int) -> list[Example]:
    rng = np.random.default_rng([seed, list(VADER_FILES).index(name)])
    chosen = rng.permutation(len(examples))[:VADER_ROWS]
    return [examples[i] for i in sorted(chosen.tolist())]


def _read_published(config: AebConfig, bad: list[BadRow]) -> list[Example]:
    assert config.published is not None
    # The texts of the official sets locate the rows of an incomplete VADER file.
    texts = (
        {name: {e.text for e in read_vader(config.vader, name, bad=[])} for name in VADER_FILES} if config.vader else {}
    )
    examples: list[Example] = []
    for path in published_files(config.published):
        examples += read_published(path, "test", vader_texts=texts, bad=bad)
    return examples
