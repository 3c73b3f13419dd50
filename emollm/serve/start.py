"""Deploy the endpoint to the running Ray."""

from __future__ import annotations

import re

from emollm.core import errors
from emollm.core.errors import EmollmError, ResourceError
from emollm.serve.config import ServeConfig

_OWN_ERROR = re.compile(r"emollm\.core\.errors\.(\w+): (.*)")


def deploy(config: ServeConfig, *, name: str = "emollm", route_prefix: str = "/") -> None:
    """Returns once it answers. Raises the error that kept the model from loading, as its replica raised it."""
    from ray import serve

    from emollm.serve.app import build

    try:
        serve.run(build(config.model_dump()), name=name, route_prefix=route_prefix)
    except RuntimeError as error:
        raise _cause(name, error) from None


def _cause(name: str, error: RuntimeError) -> EmollmError:
    # Serve raises only the names of deployments; the reason is in their state.
    from ray import serve

    application = serve.status().applications.get(name)
    messages = [state.message for state in application.deployments.values() if state.message] if application else []
    for message in messages:
        if found := _OWN_ERROR.findall(message):
            kind: type[EmollmError] = getattr(errors, found[-1][0])
            return kind(found[-1][1])
    lines = [line for line in "\n".join([str(error), *messages]).splitlines() if line.strip()]
    return ResourceError(f"the endpoint did not start: {lines[-1]}")
