"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: the message says in one line what was wrong, what was given and what to do.

    The command line prints the message alone and exits with 2; a library caller catches it
    as a `ValueError`.
    """


NOT_A_NUMBER = "an eviction policy returned NaN as a score: its victims would be arbitrary"
