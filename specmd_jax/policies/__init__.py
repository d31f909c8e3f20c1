"""The four families of policies, one policy a file, and what four of them make: a strategy."""
