"""A task of the request, a context and a target through a real endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

import emollm
from tests.serve.conftest import Deploy

pytestmark = pytest.mark.ray


def test_an_own_task_with_context_and_target_is_answered_as_in_python(deploy: Deploy, model_directory: Path) -> None:
    texts, contexts, targets = ["It is over!", "Rain again."], ["Well?", None], [None, "the council"]
    body = {"texts": texts, "contexts": contexts, "targets": targets, "tasks": [{"labels": ["relief", "dread"]}]}
    client = deploy()
    response = client.post("/v1/annotate", json=body)
    assert response.status_code == 200, response.text
    frame = emollm.annotate(
        texts, emollm.labels("relief", "dread"), model=model_directory, context=contexts, target=targets,
        details=True, progress=False, precision="float32",
    )  # fmt: skip
    for result, row in zip(response.json()["results"], frame.to_dict("records"), strict=True):
        [answer] = result["answers"]
        assert answer["way"] == row["relief_dread_way"] and result["notes"] == row["notes"]
        assert answer["probabilities"] == pytest.approx(row["relief_dread_probabilities"], abs=1e-5)
    refused = client.post("/v1/annotate", json={"texts": ["a"], "tasks": ["V-reg", {"labels": ["relief"]}]})
    assert refused.status_code == 422 and refused.json()["error"]["fields"][0]["field"] == "tasks.1"
    refused = client.post("/v1/annotate", json={"texts": ["a"], "contexts": [], "tasks": ["V-reg"]})
    assert refused.status_code == 422 and "one for each" in refused.text
