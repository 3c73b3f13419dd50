"""Joint training of backbone and heads, optionally with instruction tuning: rows, loss, and the resulting heads.

The heads start from the frozen fit (Kumar et al. 2022: fine-tuning from a fitted head distorts features less
than from a random one), and a tenth of the texts is held out to calibrate them at the end.

Shapes: B rows, F features, O outputs, C gold columns (those of all questions, concatenated; NaN is a gap).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from emollm.core.card import AffectCard
from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import ModelError
from emollm.core.heads_card import FeatureSpec, Head, HeadsCard, Prompt
from emollm.core.prompts import Post
from emollm.core.tasks import Kind, QuestionKey, Task
from emollm.models.batching import with_least_padding
from emollm.models.device import activation_bytes, default_batch_tokens, pass_tokens
from emollm.models.load import LoadedModel, load_model
from emollm.models.save import tolerance, trained_dtype
from emollm.scoring.heads import head_calibration
from emollm.scoring.heads.backbone import Backbone, Batch, PostEncoder
from emollm.scoring.heads.derive import derived_heads, with_derived
from emollm.scoring.heads.labels import Floats, LabelledText, subset
from emollm.scoring.heads.ridge import Scale
from emollm.scoring.heads.weights import HeadWeights, load_bank
from emollm.training.batches import EncodedRow, MicroBatch, cut_by_length
from emollm.training.objective import AnswerLoss
from emollm.training.validation import gathered

if TYPE_CHECKING:
    from emollm.scoring.scorer import Scorer

_SLOWER = 0.03
"""Learning rate of the heads relative to that of the weights: the heads already fit the initial features."""


@dataclass(frozen=True, slots=True)
class StartingHeads:
    """The start of joint training: the heads of the frozen base, and the texts they are trained and calibrated on."""

    labelled: LabelledText
    held_out_N: NDArray[np.bool_]
    tasks: tuple[Task, ...]
    prompt: Prompt
    feature_specs: tuple[FeatureSpec, ...]
    heads: tuple[Head, ...]
    head_weights: HeadWeights
    scale: Scale

    @property
    def learnt(self) -> LabelledText:
        """The texts to train on."""
        return subset(self.labelled, np.flatnonzero(~self.held_out_N))


@dataclass(frozen=True, slots=True)
class HeadRow(EncodedRow):
    """A text with its golds; `answer` lists the questions that have one, over which the loss is averaged."""

    post: EncodedPrompt
    golds_C: Floats


@dataclass(frozen=True, slots=True)
class BothRow(HeadRow):
    """An instruction row, together with its text for the heads."""


class Joint:
    """The objective of a run with heads, for one worker."""

    def __init__(
        self, loaded: LoadedModel, start: StartingHeads, *, with_answers: Callable[..., MicroBatch] | None,
        loss_weight: float, device: str,
    ) -> None:  # fmt: skip
        """`with_answers` collates instruction rows into a micro-batch; None: only the heads are trained."""
        self.start = start
        self._loaded, self._device = loaded, device
        self._with_answers = with_answers
        self._encode = PostEncoder(loaded, start.prompt)
        self.backbone = Backbone(loaded.model, loaded.card.base.architecture)
        if with_answers is None:
            a_post = self._encode.batch([self._encode("a post")], device)
            _freeze_unread(loaded.model, self.backbone, a_post, max(r.layer for r in start.feature_specs))
        self._columns = _columns(start)
        self._loss = HeadsLoss(
            loaded.model, self.backbone, start, self._columns, loss_weight=loss_weight, device=device
        )
        self.module: nn.Module = self._loss

    def rows(self, labelled: LabelledText, table: pa.Table, answers: Sequence[EncodedRow]) -> list[EncodedRow]:
        """Each of these texts once; with answers the rows of `table` about one, each with its text."""
        if self._with_answers is None:
            return self._text_rows(labelled)
        return self._rows_beside(labelled, table, answers)

    def _text_rows(self, labelled: LabelledText) -> list[EncodedRow]:
        rows: list[EncodedRow] = []
        posts = self._encode.posts(labelled.posts)
        for n, (post, golds_C) in enumerate(zip(posts, self._golds(labelled), strict=True)):
            questions = [k for k, columns in enumerate(self._columns.values()) if not np.isnan(golds_C[columns]).any()]
            if questions:
                rows.append(HeadRow(f"text {n}", post.ids, questions, post, golds_C))
        return rows

    def _rows_beside(self, labelled: LabelledText, table: pa.Table, answers: Sequence[EncodedRow]) -> list[EncodedRow]:
        posts = self._encode.posts(labelled.posts)
        golds_NC = self._golds(labelled)
        place = {post: n for n, post in enumerate(labelled.posts)}
        pieces = table.select(list(Post._fields)).to_pylist()
        return [
            BothRow(row.id, row.prompt, row.answer, posts[n], golds_NC[n])
            for row, piece in zip(answers, pieces, strict=True)
            if (n := place.get(Post(*(text or "" for text in piece.values())))) is not None
        ]

    def _golds(self, labelled: LabelledText) -> Floats:
        """[N, C]: a question without a gold for these texts is a gap."""
        golds_NC = np.full((len(labelled.texts), sum(c.stop - c.start for c in self._columns.values())), np.nan)
        for key, columns in self._columns.items():
            if key in labelled.golds:
                golds_NC[:, columns] = labelled.golds[key]
        return golds_NC

    def cut(self, batch: Sequence[EncodedRow], micro_batch_size: int) -> list[list[EncodedRow]]:
        return cut_by_length(batch, micro_batch_size)

    def collate(self, rows: Sequence[EncodedRow]) -> MicroBatch:
        mine = [row for row in rows if isinstance(row, HeadRow)]
        batch = self._encode.batch([row.post for row in mine], "cpu")
        inputs: dict[str, Any] = {"batch": tuple(batch)}
        golds_BC = torch.tensor(np.stack([row.golds_C for row in mine]), dtype=torch.float32)
        if self._with_answers is not None:
            answers = self._with_answers(rows)
            inputs |= {"answers": answers.inputs, "labels_BT": answers.labels_BT}
        return MicroBatch(inputs, golds_BC)

    @torch.no_grad()
    def finished(self, *, rank: int = 0, world_size: int = 1) -> tuple[HeadWeights, tuple[Head, ...]]:
        """The trained weights for unscaled features, and the heads calibrated on the held-out texts, of which each rank
        scores its share. Collective.
        """
        self._loaded.model.eval()
        start = self.start
        head_weights = self._loss.head_weights()
        held = np.flatnonzero(start.held_out_N)
        scores_NO = self.scores(head_weights, subset(start.labelled, held[rank::world_size]).posts)
        if world_size > 1:
            scores_NO = np.stack(gathered(list(scores_NO), world_size))
        tasks = {task.name: task for task in start.tasks}
        heads = []
        for head in start.heads:
            known = start.labelled.gold_first(head.key, held, at_least=head_calibration.LEAST_TEXTS)
            if len(known) >= head_calibration.LEAST_TEXTS:
                scores = scores_NO[np.searchsorted(held, known)][:, list(head.outputs)]
                golds, variance_N = start.labelled.golds[head.key][known], start.labelled.variance.get(head.key)
                spread = None if variance_N is None else variance_N[known]
                head = head_calibration.calibrated(tasks[head.task], head, scores, golds, spread)
                metrics = head_calibration.held_out_metrics(tasks[head.task], head, scores, golds)
                head = head.model_copy(update={"metrics": metrics})
            heads.append(head)
        return head_weights, tuple(heads)

    def card(self, heads: tuple[Head, ...], *, writes_answers: bool) -> AffectCard:
        """The model's card with these heads and the heads derived from them."""
        start, derived = self.start, derived_heads(heads)
        section = HeadsCard(
            prompt=start.prompt,
            feature_specs=start.feature_specs,
            heads=(*heads, *derived),
            precision="bf16" if trained_dtype(self._loaded.model) is torch.bfloat16 else "float32",
            writes_answers=writes_answers,
        )
        return self._loaded.card.model_copy(update={"heads": section, "tasks": with_derived(start.tasks, derived)})

    def scorer(self) -> Scorer:
        """A scorer with the current heads and the calibration of the start."""
        from emollm.scoring.heads.engine import HeadsScorer

        loaded = replace(self._loaded, card=self.card(self.start.heads, writes_answers=False))
        return HeadsScorer(loaded, device=self._device, head_weights=self._loss.head_weights(), backbone=self.backbone)

    def scores(self, head_weights: HeadWeights, posts: Sequence[Post], *, device: str | None = None) -> Floats:
        """[posts, O] of the current model."""
        return head_scores(
            self._encode, self.backbone, self.start.feature_specs, head_weights, posts, device=device or self._device
        )


@torch.no_grad()
def head_scores(
    encode: PostEncoder,
    backbone: Backbone,
    feature_specs: Sequence[FeatureSpec],
    head_weights: HeadWeights,
    posts: Sequence[Post],
    *,
    device: str = "cpu",
) -> Floats:
    """[posts, O], batched by length."""
    encoded = encode.posts(posts)
    batch_tokens = default_batch_tokens(device, bytes_per_token=activation_bytes(backbone.lm))
    scores = np.zeros((len(encoded), len(head_weights.bias_O)))
    lengths, worth = [len(post.ids) for post in encoded], pass_tokens(backbone.lm, device)
    for part in with_least_padding(lengths, batch_tokens=batch_tokens, pass_tokens=worth):
        batch = encode.batch([encoded[i] for i in part], device)
        scores[part] = head_weights.scores(backbone.features(batch, feature_specs).cpu().numpy())
    return scores


class HeadsLoss(nn.Module):
    """Summed negative log-likelihood of the golds under the heads, in nats; with answers, that of the answers too."""

    def __init__(
        self, model: Any, backbone: Backbone, start: StartingHeads, columns: dict[QuestionKey, slice], *,
        loss_weight: float, device: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model
        self._answers = AnswerLoss(model)
        self._trunk, self._start, self._columns, self._loss_weight = backbone, start, columns, loss_weight
        scale, weight_OF = start.scale, start.head_weights.weight_OF.astype(np.float64)
        # Plain float32 tensors: buffers would be rounded to bf16 with the model.
        self._mean_F, self._per_std_F, self._weight_OF, self._bias_O = (
            torch.tensor(array, dtype=torch.float32, device=device)
            for array in (
                scale.mean_F,
                1 / scale.std_F,
                weight_OF * np.where(np.isfinite(scale.std_F), scale.std_F, 0.0),
                start.head_weights.bias_O + weight_OF @ scale.mean_F,
            )
        )
        self.change_OF = nn.Parameter(torch.zeros_like(self._weight_OF))
        self.change_O = nn.Parameter(torch.zeros_like(self._bias_O))

    def forward(self, inputs: dict[str, Any], golds_BC: torch.Tensor) -> torch.Tensor:
        """Sum over the questions with a gold; with answers, over answer tokens, where a row's questions weigh as much
        as its answer, times the weight of the heads.
        """
        features_BF = self._trunk.features(Batch(*inputs["batch"]), self._start.feature_specs)
        with torch.autocast(features_BF.device.type, enabled=False):
            weight_OF, bias_O = self._moved()
            scores_BO = F.linear((features_BF - self._mean_F) * self._per_std_F, weight_OF, bias_O)
            nats_BQ, known_BQ = self._nats(scores_BO, golds_BC)
        if "answers" not in inputs:
            return nats_BQ.sum()
        answers: torch.Tensor = self._answers(inputs["answers"], inputs["labels_BT"])
        tokens_B: torch.Tensor = (inputs["labels_BT"] >= 0).sum(dim=1)
        per_row_B = nats_BQ.sum(dim=1) / known_BQ.sum(dim=1).clamp(min=1)
        heads: torch.Tensor = (per_row_B * tokens_B).sum()
        return answers + self._loss_weight * heads

    def _nats(self, scores_BO: torch.Tensor, golds_BC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nats, known = [], []
        tasks = {task.name: task for task in self._start.tasks}
        heads = {head.key: head for head in self._start.heads}
        for key, columns in self._columns.items():
            gold_BK, head = golds_BC[:, columns], heads[key]
            known_B = ~gold_BK.isnan().any(dim=1)
            # A gap must not reach the loss, not even as a gradient: NaN times 0 is NaN.
            filled_BK = torch.where(known_B[:, None], gold_BK, torch.zeros_like(gold_BK))
            each_B = _negative_log_likelihood(tasks[key[0]], head, scores_BO[:, list(head.outputs)], filled_BK)
            nats.append(torch.where(known_B, each_B, torch.zeros_like(each_B)))
            known.append(known_B)
        return torch.stack(nats, dim=1), torch.stack(known, dim=1)

    def _moved(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The current weights for scaled features."""
        return (
            self._weight_OF + _SLOWER * self.change_OF.float(),
            self._bias_O + _SLOWER * self.change_O.float(),
        )

    def head_weights(self) -> HeadWeights:
        """The current weights for unscaled features."""
        weight, bias = self._moved()
        weight = weight * self._per_std_F
        bias = bias - weight @ self._mean_F
        return HeadWeights(*(np.ascontiguousarray(t.detach().cpu().float().numpy()) for t in (weight, bias)))


def _negative_log_likelihood(task: Task, head: Head, scores_BK: torch.Tensor, golds_BK: torch.Tensor) -> torch.Tensor:
    """[B] nats, up to a constant; the calibration of the frozen fit stays fixed."""
    slope = scores_BK.new_tensor(head.slope)
    offset = scores_BK.new_tensor(head.offset)
    match task.kind:
        case Kind.REGRESSION:
            std = float(np.mean([std for _, std in head.spread]))
            return (scores_BK[:, 0] * slope[0] + offset[0] - golds_BK[:, 0]) ** 2 / (2 * std**2)
        case Kind.ORDINAL:
            below = torch.sigmoid(offset - slope[0] * scores_BK[:, :1])
            ends = below.new_zeros(len(below), 1)
            each_BK = torch.diff(torch.cat([ends, below, ends + 1], dim=1), dim=1)
            likelihood_B = (golds_BK * each_BK.clamp(min=1e-6).log()).sum(dim=1)
            return -likelihood_B
        case Kind.SINGLE_LABEL:
            return -(golds_BK * F.log_softmax(scores_BK * slope + offset, dim=1)).sum(dim=1)
        case Kind.LABEL_SET:
            logits_BK = scores_BK * slope + offset
            return F.binary_cross_entropy_with_logits(logits_BK, golds_BK, reduction="none").sum(dim=1)


def _columns(start: StartingHeads) -> dict[QuestionKey, slice]:
    columns, at = {}, 0
    for head in start.heads:
        columns[head.key] = slice(at, at + start.labelled.golds[head.key].shape[1])
        at = columns[head.key].stop
    return columns


def _freeze_unread(model: Any, backbone: Backbone, batch: Batch, depth: int) -> None:
    """Freeze parameters that the states of layer `depth` do not depend on: they get no gradient."""
    read: set[int] = set()
    is_past = False

    def note(module: nn.Module, _inputs: Any) -> None:
        if not is_past:
            read.update(id(parameter) for parameter in module.parameters(recurse=False))

    def stop(*_: Any) -> None:
        nonlocal is_past
        is_past = True

    handles = [module.register_forward_pre_hook(note) for module in backbone.module.modules()]
    handles.append(backbone.blocks[depth - 1].register_forward_hook(stop))
    with torch.no_grad():
        backbone.states(batch, [depth])
    for handle in handles:
        handle.remove()
    for parameter in model.parameters():
        if id(parameter) not in read:
            parameter.requires_grad_(False)


def verify_heads(folder: Path, loaded: LoadedModel, joint: Joint, head_weights: HeadWeights) -> float:
    """Reload a saved model directory in the type of the model in memory, and compare the heads' scores of two posts.

    Returns the largest difference; raises ModelError where it is more than rounding.
    """
    dtype = trained_dtype(loaded.model)
    posts = [Post("so that is what a quiet evening feels like :)"), Post("the train is late AGAIN")]
    loaded.model.eval().to("cpu")
    again = load_model(str(folder), dtype=dtype)
    assert again.card.heads is not None
    encode, backbone = PostEncoder(again, again.card.heads.prompt), Backbone(again.model, again.card.base.architecture)
    saved = head_scores(encode, backbone, again.card.heads.feature_specs, load_bank(folder, again.card.heads), posts)
    expected = torch.from_numpy(joint.scores(head_weights, posts, device="cpu"))
    difference = float((torch.from_numpy(saved) - expected).abs().max())
    if not difference <= tolerance(dtype, expected):
        raise ModelError(f"the heads saved in {folder} differ from those trained: scores by {difference:.2g}")
    return difference
