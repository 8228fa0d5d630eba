"""Show the comments behind the fields of a class, which say shapes and units, in the reference."""

import re
from typing import Any

import griffe

_COMMENT = re.compile(r"\S.*?  # (.+)$")


class FieldComments(griffe.Extension):
    """Take the comment at the end of a field's line as its docstring."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called for every attribute that was read."""
        if attr.docstring is None and attr.parent is not None and attr.parent.is_class and attr.source:
            comment = _COMMENT.search(attr.parent.lines[(attr.lineno or 0) - (attr.parent.lineno or 0)])
            if comment:
                attr.docstring = griffe.Docstring(comment[1], parent=attr)
