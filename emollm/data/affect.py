"""All corpora of a general affect model in one data folder: what `emollm build-data affect` runs.

Official training files and splits are for training, official dev files for validation. A text that is also in a test
file, or in a dev file, is left out of training; the manifest counts those texts by corpus. Texts have the labels of
their own corpus only: for the questions of other corpora they are unlabelled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from emollm.core.errors import ConfigError
from emollm.core.folders import check_new
from emollm.core.tasks import TASKS
from emollm.data.aaid import BuildConfig, settle_bad, used_tasks, write_folder
from emollm.data.corpora.emobank import read_emobank
from emollm.data.corpora.example import BadRow, Example
from emollm.data.corpora.goemotions import read_goemotions
from emollm.data.corpora.published import published_files, read_published
from emollm.data.corpora.rated import read_emobank_raters, read_goemotions_raters
from emollm.data.corpora.semeval import read_semeval
from emollm.data.corpora.sst import has_scores, read_sst
from emollm.data.corpora.tdt import read_tdt
from emollm.data.corpora.vader import FILES as VADER_FILES
from emollm.data.corpora.vader import read_vader
from emollm.data.instructions import build_rows
from emollm.data.manifest import describe_wording, file_hashes

_SPLITTER = re.compile(r"https?://\S+|@\w+|[^\w@]+|[_@]+")
_CORPORA = ("semeval", "goemotions", "emobank", "sst", "tdt")


class AffectConfig(BuildConfig):
    """Build one training folder from the official files of all corpora of a general affect model."""

    semeval: Path | None = None
    """Folder of SemEval-2018 Task 1, English train and dev files of the five tasks."""
    goemotions: Path | None = None
    """Folder with GoEmotions' train.tsv, dev.tsv and, to keep its texts out of training, test.tsv."""
    emobank: Path | None = None
    """emobank.csv or its folder."""
    sst: Path | None = None
    """Folder of the Stanford Sentiment Treebank. From its trees SST is the middle of the class: .1, .3, .5, .7, .9."""
    tdt: Path | None = None
    """Folder with TDT's train.raw; it has no dev file."""
    with_target: bool = False
    """Say TDT's target beside the text, as the published benchmark does not."""
    vader: Path | None = None
    """Folder of VADER's four sets. They are test sets: their texts are kept out of training."""
    published: Path | None = None
    """Folder of the published AEB files, whose texts are kept out of training, too."""
    raters: bool = False
    """Read GoEmotions and EmoBank from the files with every rater's answer (goemotions_1.csv and so on,
    individual_reader_ratings.csv and individual_writer_ratings.csv): the ratings become soft targets."""
    max_texts: int | None = Field(None, ge=1)
    """Train on at most this many texts of each corpus, drawn by the seed. None: all."""


def build_affect(config: AffectConfig) -> dict[str, pa.Table]:
    """Write the data folder; return its tables by split. Raises ConfigError if no corpus to learn from is given."""
    check_new(config.out.absolute(), overwrite=config.overwrite)
    if not any(getattr(config, name) for name in _CORPORA):
        raise ConfigError(f"no corpus given; give at least one of: {', '.join(f'--{name}' for name in _CORPORA)}")
    bad: list[BadRow] = []
    dev = read_corpora(config, "dev", bad)
    found = read_corpora(config, "train", bad)
    tests = read_tests(config, bad)
    settle_bad(bad, skip=config.skip_bad)
    train, in_test = without(found, tests)
    train, in_dev = without(train, (example.text for example in dev))
    dev, dev_in_test = without(dev, tests)
    train = capped(train, config.max_texts, seed=config.seed)
    examples = {"train": train, "validation": dev}
    tasks = {name: TASKS[name] for name in TASKS if name in used_tasks(examples)}
    tables = {
        name: build_rows(
            [replace(e, template=tasks[e.task].templates[0]) for e in part],
            seed=config.seed,
            templates_per_example=1,
            tasks=tasks,
        )
        for name, part in examples.items()
    }
    files = {Path(e.path) for e in (*found, *dev)} | {Path(row.path) for row in bad}
    options = (*_CORPORA, "vader", "published")
    write_folder(
        config,
        job="affect",
        tables=tables,
        tasks=tasks.values(),
        bad=bad,
        facts={
            "files": file_hashes(sorted(files), roots={option: getattr(config, option) for option in options}),
            "wording": describe_wording(tasks.values(), None),
            "left_out": {"train_in_test": in_test, "train_in_dev": in_dev, "dev_in_test": dev_in_test},
        },
    )
    return tables


def read_corpora(config: AffectConfig, split: str, bad: list[BadRow]) -> list[Example]:
    """The examples of "train" or "dev" of every corpus given."""
    examples: list[Example] = []
    if config.semeval:
        semeval = read_semeval(config.semeval, split, bad=bad)
        examples += [*semeval, *any_post_intensities(semeval)]
    if config.goemotions:
        for name in ("GoEmotions-28", "GoEmotions"):
            read = read_goemotions_raters if config.raters else read_goemotions
            examples += read(config.goemotions, split, task_name=name, bad=bad)
    if config.emobank:
        examples += (read_emobank_raters if config.raters else read_emobank)(config.emobank, split, bad=bad)
    if config.sst:
        classes = read_sst(config.sst, split, bad=bad)
        scored = has_scores(config.sst)
        examples += classes
        examples += read_sst(config.sst, split, task_name="SST", bad=bad) if scored else map(_class_middle, classes)
    if config.tdt and split == "train":
        examples += read_tdt(config.tdt, split, with_target=config.with_target, bad=bad)
    return examples


def _class_middle(example: Example) -> Example:
    """The SST score of a sentence with a known class: the middle of the class, one of five equal bins of the score."""
    classes = len(TASKS["SST5"].classes)
    assert isinstance(example.value, int)
    return replace(example, task="SST", value=round((example.value + 0.5) / classes, 3))


def any_post_intensities(examples: Sequence[Example]) -> list[Example]:
    """The golds of Intensity: EI-reg's if the tweet shows the emotion (E-c), 0 if it does not.

    A tweet that shows the emotion and was not rated for its intensity has no gold.
    """
    rated = {(e.id, e.emotion): e for e in examples if e.task == "EI-reg"}
    golds = []
    for shown in (e for e in examples if e.task == "E-c"):
        assert isinstance(shown.value, tuple)
        for emotion in TASKS["Intensity"].emotions:
            if emotion not in shown.value:
                golds.append(replace(shown, task="Intensity", emotion=emotion, value=0.0))
            elif gold := rated.get((shown.id, emotion)):
                golds.append(replace(gold, task="Intensity"))
    return golds


def read_tests(config: AffectConfig, bad: list[BadRow]) -> list[str]:
    """The texts of all given test files."""
    examples: list[Example] = []
    if config.goemotions and (config.goemotions / "test.tsv").is_file():
        examples += read_goemotions(config.goemotions, "test", bad=bad)
    if config.emobank:
        examples += read_emobank(config.emobank, "test", bad=bad)
    if config.sst and (has_scores(config.sst) or list(config.sst.rglob("test.txt"))):
        examples += read_sst(config.sst, "test", bad=bad)
    if config.tdt and list(config.tdt.rglob("test.raw")):
        examples += read_tdt(config.tdt, "test", bad=bad)
    vader = {name: read_vader(config.vader, name, bad=bad) for name in VADER_FILES} if config.vader else {}
    examples += [example for found in vader.values() for example in found]
    if config.published:
        # Only texts are needed, so it does not matter which VADER set a published row is from.
        unplaced: list[BadRow] = []
        for path in published_files(config.published):
            examples += read_published(path, "test", bad=unplaced)
        return [example.text for example in examples] + [row.value for row in unplaced]
    return [example.text for example in examples]


def without(examples: Sequence[Example], texts: Iterable[str]) -> tuple[list[Example], dict[str, int]]:
    """The examples whose words differ from those of all `texts`, and the number of removed texts per corpus."""
    known = {words_of(text) for text in texts}
    kept = [example for example in examples if words_of(example.text) not in known]
    gone = {(e.source, e.text) for e in examples} - {(e.source, e.text) for e in kept}
    return kept, dict(sorted(Counter(source for source, _ in gone).items()))


def capped(examples: list[Example], most: int | None, *, seed: int) -> list[Example]:
    """The examples of `most` texts of each corpus; None: all."""
    if most is None:
        return examples
    rng = np.random.default_rng(seed)
    kept: set[tuple[str, str]] = set()
    for source in dict.fromkeys(e.source for e in examples):
        texts = list(dict.fromkeys(e.text for e in examples if e.source == source))
        kept |= {(source, texts[i]) for i in rng.permutation(len(texts))[:most]}
    return [e for e in examples if (e.source, e.text) in kept]


def words_of(text: str) -> str:
    """Only the words: copies of a text with other links, names or punctuation give the same key."""
    return _SPLITTER.sub(" ", text.casefold()).strip() or text
