"""Names as people type them: one found whatever its spelling, or the nearest ones offered."""

import difflib
from collections.abc import Iterable
from itertools import islice

from specmd_jax.core.errors import InputError

NEAREST = 3  # that are offered
MOST, LONGEST = 1000, 80  # names and characters; beyond them nothing is looked for
ALIKE = 0.65  # of the letters, from which on a name is taken for a slip of another
_MARKS = str.maketrans("", "", "-_. ")


def find_name(asked: str, known: Iterable[str], complaint: str, others: str = "") -> str:
    """Returns the one of `known` that `asked` spells, whatever its case and its `-`, `_` and `.`.

    Args:
      asked: what was typed.
      known: the names there are.
      complaint: how the error begins, for example "no verb is called 'simualte'".
      others: what else might be given, added to the names that are offered.

    Raises:
      InputError: there is no such name; the nearest ones are offered, else all of them.
    """
    names = list(known)
    found = same_name(asked, names)
    if found is not None:
        return found
    near = near_names(asked, names)
    offer = f"try {', '.join(near)}" if near else f"choose from {', '.join(names) or 'nothing'}"
    raise InputError(f"{complaint}: {offer}{others}")


def same_name(asked: str, known: Iterable[str]) -> str | None:
    """Returns the name that `asked` spells, None if there is none or more than one."""
    names = list(known)
    if asked in names:
        return asked
    alike = [name for name in names if plain(name) == plain(asked) != ""]
    return alike[0] if len(alike) == 1 else None


def near_names(asked: str, known: Iterable[str]) -> list[str]:
    """Returns the few names that `asked` may have been meant for, the likeliest first."""
    if len(asked) > LONGEST:
        return []
    wanted = plain(asked)
    short = (name for name in islice(known, MOST) if len(name) <= LONGEST)
    nearness = {name: _nearness(wanted, plain(name)) for name in short}
    likely = sorted(nearness, key=lambda name: -nearness[name])
    return [name for name in likely if nearness[name] >= ALIKE][:NEAREST]


def plain(name: str) -> str:
    """Returns a name without what spellings of it differ in."""
    return name.lower().translate(_MARKS)


def _nearness(wanted: str, name: str) -> float:
    """How alike two names are, from 0 to 1; the beginning of a name is nearly the name."""
    if len(wanted) >= 2 and name.startswith(wanted):
        return 1.0
    alike = difflib.SequenceMatcher(None, name, wanted).ratio()
    same_letters = sorted(wanted) == sorted(name)  # two of them in the wrong order
    return max(alike, 0.95 if same_letters and len(name) > 2 else 0.0)
