"""The sections of the report: the numbers and figures of each, and ``<name>.html.jinja``, which shows them."""

from typing import Any

Numbers = dict[str, Any]  # a part of report.json
