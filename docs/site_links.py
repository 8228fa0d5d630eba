"""Make the links to source files, which lead to files on GitHub, lead to the reference on the site."""

import re
from typing import Any

_SOURCE = re.compile(r"\]\((?:\.\./)+(nni_s3d/[\w/]+)\.py\)")
_OUTSIDE = re.compile(r"(!?)\[([^\]]*)\]\((?:\.\./)+[^)\s]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page with links to modules as cross-references, and other links out of docs/ as text."""
    markdown = _SOURCE.sub(lambda link: f"][{link[1].replace('/', '.')}]", markdown)
    return _OUTSIDE.sub(lambda link: link[0] if link[1] else link[2], markdown)
