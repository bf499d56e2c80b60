"""Random ids. They carry no order and cannot be guessed; lists are ordered by `seq`."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 24


def new_id(prefix: str) -> str:
    """Return `prefix` and 24 random letters and digits, such as "ftjob-" + ..."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
