"""Options, and the file for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from emollm.serve.app import build
from emollm.serve.config import ServeConfig
from emollm.serve.gateway import PIECES_UNDER_WAY
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replicas": 3, "max_replicas": 2}, "--max-replicas 2 is less than --replicas 3"),
        ({"batch_tokens": 1}, "greater than or equal to 64"),
        ({"deadline_s": 0}, "greater than 0"),
        ({"max_request": 5}, "not permitted"),
        ({"engine": "quick"}, "engine"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServeConfig(model="m", **options)


def test_options_of_serve_run_come_as_words() -> None:
    config = ServeConfig.model_validate({"model": "m", "replicas": "2", "open_access": "true", "batch_wait_ms": "2.5"})
    assert (config.replicas, config.open_access, config.batch_wait_ms) == (2, True, 2.5)


def test_all_pieces_in_flight_wait_in_the_replica_at_the_fair_gate(model_directory: Path) -> None:
    built = build({"model": str(model_directory), "max_requests": 40, "batch_tokens": 64})
    http = built._bound_deployment
    annotator = http.init_args[2]._bound_deployment
    assert annotator.max_ongoing_requests > 40 * PIECES_UNDER_WAY, "and whether it is ready can be asked beside them"
    assert http.max_ongoing_requests > 40


@pytest.mark.ray
def test_the_file_for_a_cluster_is_one_that_serve_deploy_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    written = yaml.safe_load((ROOT / "emollm" / "serve" / "deploy.yaml").read_text())
    (application,) = ServeDeploySchema.model_validate(written).applications
    assert application.import_path == "emollm.serve.app:build"
    config = ServeConfig.model_validate(application.args)
    assert config.host == written["http_options"]["host"]
    assert config.keys is not None
