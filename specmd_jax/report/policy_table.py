"""The README's table of policies, written from the policies' own docstrings.

python -m specmd_jax.report.policy_table README.md
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file
from specmd_jax.policies.strategy import FAMILIES
from specmd_jax.report.listings import policies

BEGIN, END = "<!-- policies: begin -->", "<!-- policies: end -->"


def policy_table() -> str:
    """Returns a Markdown table of all policies: family, name, what it means, source."""
    lines = ["| family | policy | what it does | source |", "|---|---|---|---|"]
    for family in FAMILIES:
        for record in policies():
            if record["family"] == family:
                cells = (family, f"`{record['name']}`", record["summary"], record["source"])
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Returns the page with the table between the two markers replaced.

    Raises:
      InputError: a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"the page has no {BEGIN} ... {END}: add both where the table should be")
    return f"{before}{BEGIN}\n{policy_table()}\n{END}{after}"


def main(arguments: Sequence[str]) -> None:
    """Rewrites the table in each of the named pages."""
    for name in arguments:
        page = Path(name)
        with replace_file(page) as half:
            half.write_text(with_table(page.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
