"""Reports as single HTML files: no script, no font, nothing fetched, light and dark.

The templates beside this file hold the wording and the markup; every value that they show is escaped. Charts come as
SVG from `charts`, which escapes what it draws.
"""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, /, **values: Any) -> str:
    """The page that `templates/TEMPLATE` makes of these values; `title` is its heading.

    Equal values give equal bytes. A value that the template wants and does not get raises jinja2.UndefinedError.
    """
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("emollm.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
