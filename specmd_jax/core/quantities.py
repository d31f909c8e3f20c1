"""Numbers as people read them: three digits that matter, a unit, a dash for what is not known."""

UNKNOWN = "-"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def count(value: int | None) -> str:
    """Returns a whole number with its thousands apart."""
    return UNKNOWN if value is None else f"{value:,}"


def plural(number: int, what: str) -> str:
    """Returns how many there are of something, for example `1 pass` or `2,048 passes`."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{count(number)} {what}{ending}"


def percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def seconds(value: float | None) -> str:
    """Returns a time in the unit in which it has one to three digits before the point."""
    if value is None:
        return UNKNOWN
    scale, unit = next((time for time in _TIMES if abs(value) >= time[0]), _TIMES[-1])
    return f"{_three(value / scale)} {unit}" if value else "0 s"


def nbytes(value: int | float | None) -> str:
    """Returns a size in decimal units."""
    if value is None:
        return UNKNOWN
    scale, prefix = next((size for size in _PREFIXES if value >= size[0]), (1, ""))
    return f"{_three(value / scale)} {prefix}B" if value else "0 B"


def device_memory(value: int) -> str:
    """Returns a device's memory: makers count it in GiB, sizes of models are in GB."""
    gib = value / 2**30
    return f"{nbytes(value)} ({gib:.0f} GiB)" if gib.is_integer() and gib else nbytes(value)


def _three(value: float) -> str:
    """Returns three significant digits, and all digits before the point."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"
