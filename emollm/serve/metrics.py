"""Metrics for Prometheus, exported by Ray in addition to Ray Serve's own."""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Sequence

from ray.serve.metrics import Counter, Gauge, Histogram

from emollm.core.answers import Answer
from emollm.core.prompts import Question
from emollm.serve.drift import Drift

_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60]
_TOKENS = [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768]


class ModelMetrics:
    """Metrics of one model replica."""

    def __init__(self) -> None:
        column = ("task", "emotion")
        self._waiting = Gauge("emollm_waiting_pieces", "Pieces of requests waiting for the model.")
        self._tokens = Histogram("emollm_batch_tokens", "Estimated tokens of a batch.", boundaries=_TOKENS)
        self._requests = Histogram(
            "emollm_batch_requests", "Requests in a batch.", boundaries=[1, 2, 4, 8, 16, 32, 64, 128]
        )
        self._seconds = Histogram("emollm_batch_seconds", "Seconds per batch in the model.", boundaries=_SECONDS)
        self._answers = Counter("emollm_answers", "Answers given, by value.", tag_keys=(*column, "answer"))
        # Counters take a batch's sum at once; a histogram wants a call per answer, 0.2 s for 400 posts of 11 answers.
        self._confidence = Counter(
            "emollm_confidence", "Answers by confidence, in tenths.", tag_keys=(*column, "confidence")
        )
        self._label_drift = Gauge(
            "emollm_answer_drift",
            "Distance of the last 500 answers from the first 500, 0..1.",
            tag_keys=column,
        )
        self._confidence_drift = Gauge(
            "emollm_confidence_drift",
            "Mean confidence of the last 500 answers minus the first 500.",
            tag_keys=column,
        )
        self._drifts: defaultdict[tuple[str, str], Drift] = defaultdict(Drift)

    def waiting(self, pieces: int) -> None:
        self._waiting.set(pieces)

    def batch(self, *, requests: int, tokens: int, seconds: float, waiting: int) -> None:
        self._requests.observe(requests)
        self._tokens.observe(tokens)
        self._seconds.observe(seconds)
        self._waiting.set(waiting)

    def answers(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        """Count the answers of a batch and move the drift gauges."""
        given: Tally[tuple[str, str, str]] = Tally()
        confidences: Tally[tuple[str, str, str]] = Tally()
        touched = set()
        for question, answer in zip(questions, answers, strict=True):
            if question.task.way is not None:
                # Its name and labels are a client's: a series of each would have no end.
                given["(asked)", "", (answer.way or answer.error or "").split(" ")[0].split(":")[0]] += 1
                continue
            key = (question.task.name, question.emotion or "")
            words = answer_words(answer)
            given.update((*key, word) for word in words)
            if answer.confidence is not None:
                confidences[*key, tenth(answer.confidence)] += 1
                self._drifts[key].add(words, answer.confidence)
                touched.add(key)
        for (task, emotion, word), count in given.items():
            self._answers.inc(count, tags={"task": task, "emotion": emotion, "answer": word})
        for (task, emotion, share), count in confidences.items():
            self._confidence.inc(count, tags={"task": task, "emotion": emotion, "confidence": share})
        for task, emotion in touched:
            drift = self._drifts[task, emotion]
            of_answers, of_confidence = drift.of_answers, drift.of_confidence
            if of_answers is not None and of_confidence is not None:
                self._label_drift.set(of_answers, tags={"task": task, "emotion": emotion})
                self._confidence_drift.set(of_confidence, tags={"task": task, "emotion": emotion})


def answer_words(answer: Answer) -> list[str]:
    """An answer as words to count: a regression by its tenth of 0..1, a label set by its labels."""
    match answer.value:
        case None:
            return [(answer.error or "none").split(":")[0]]
        case tuple():
            return list(answer.value) or ["none"]
        case float() if answer.unit is not None:
            return [tenth(answer.unit)]
        case value:
            return [str(value)]


def tenth(share: float) -> str:
    """The tenth of 0..1 that a number lies in, by its lower end: "0.0" to "0.9"."""
    return f"0.{min(9, int(share * 10))}"


class HttpMetrics:
    """Metrics of one HTTP replica."""

    def __init__(self) -> None:
        self._requests = Counter("emollm_requests", "HTTP requests answered.", tag_keys=("route", "status", "key"))
        self._seconds = Histogram(
            "emollm_request_seconds", "Seconds from request to answer.", boundaries=_SECONDS, tag_keys=("route",)
        )
        self._texts = Counter("emollm_texts", "Texts received.", tag_keys=("key",))
        self._at_work = Gauge("emollm_requests_at_work", "Requests in progress or waiting.")
        self._lost = Counter("emollm_replica_losses", "Pieces sent again because their replica died.")

    def request(self, *, route: str, status: int, key: str, seconds: float, texts: int) -> None:
        self._requests.inc(tags={"route": route, "status": str(status), "key": key})
        self._seconds.observe(seconds, tags={"route": route})
        if texts:
            self._texts.inc(texts, tags={"key": key})

    def at_work(self, requests: int) -> None:
        self._at_work.set(requests)

    def lost(self) -> None:
        self._lost.inc()
