"""HTML pages from the package's templates."""

from __future__ import annotations

from typing import Any


def render_page(template: str, **content: Any) -> bytes:
    """Return a page of ``tradeloop/templates``; the same content gives the same bytes.

    What is inserted is escaped, and a name that the template uses and `content` lacks is an error.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tradeloop"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content).encode()
