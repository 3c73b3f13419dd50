"""Checks before a job with inference servers: the servers' features and the estimated cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from emollm.annotation.stage import Corpus, read_staged
from emollm.core.errors import ConfigError
from emollm.core.options import with_values
from emollm.core.prompts import questions_for
from emollm.scoring.rows import asked_of
from emollm.scoring.server.detect import Detected, detect
from emollm.scoring.server.engine import ServerScorer

if TYPE_CHECKING:
    from emollm.annotation.job import Job

_SAMPLE_POSTS = 200


def look_at_servers(job: Job) -> Detected:
    """Detect the servers' features and report them on stderr. Raises ConfigError if a server cannot be used."""
    config = job.config
    found = detect(config.server, config.model, config.requests, one_prompt=config.one_prompt)
    print(f"server: {found.told()}", file=sys.stderr, flush=True)
    return found


def check_cost(job: Job, corpus: Corpus, left: int) -> None:
    """Print the estimated cost of the `left` posts, from a sample. Raises ConfigError if it is above the cap."""
    config, requests = job.config, job.config.requests
    sample = read_staged(job.output.filesystem, job.output.posts, corpus, 0, min(_SAMPLE_POSTS, corpus.posts))
    questions = asked_of(sample, config.beside, job.tasks)
    if not questions:
        return
    scorer = ServerScorer(config.model, **_asked(job), requests=with_values(requests, reuse=False))
    posts = len(questions) / len(questions_for("", job.tasks))
    count, prompt, reply = (round(number * left / posts) for number in scorer.estimate(questions))
    cost = requests.cost(prompt, reply)
    print(
        f"estimated: {count:,} requests, {prompt:,} prompt tokens, {reply:,} reply tokens"
        + (f", cost {cost:,.2f}" if cost else ""),
        file=sys.stderr,
        flush=True,
    )
    if requests.max_cost is not None and cost > requests.max_cost:
        raise ConfigError(
            f"the cost of {left:,} posts is estimated at {cost:,.2f}, above --requests.max-cost {requests.max_cost:g}; "
            "annotate fewer with --max-posts, or raise it"
        )


def scorer_options(job: Job) -> dict[str, Any]:
    """The options for each actor, with its share of the requests in flight."""
    config = job.config
    actors = config.max_workers or config.cluster.num_workers
    share = with_values(config.requests, in_flight=max(1, config.requests.in_flight // actors))
    return {**_asked(job), "requests": share, "way": config.way}


def _asked(job: Job) -> dict[str, Any]:
    return {"server": job.config.server, "one_prompt": job.config.one_prompt, "detected": job.detected}
