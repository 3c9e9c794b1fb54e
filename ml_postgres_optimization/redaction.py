"""Blot passwords out of texts that somebody will read: a last line, for what was typed in the wrong place."""

from __future__ import annotations

import re

_BLOT = "***"
# Whatever stands between the scheme of a URI and its last @: a user's name may hold any character, a password too.
_IN_A_URI = re.compile(r"(?<=://).*@", re.DOTALL)
# The same where the scheme is gone, since the URI was taken apart at the wrong place.
_BEFORE_AN_AT = re.compile(r'(?<=:)[^\s:/@"]+(?=@)')
# ``password=…`` of libpq and of a URI, quoted or not; ``'password': …`` of a mapping that is shown.
_BY_NAME = re.compile(
    r"""(?P<name>(?:password|passwd|passphrase|pwd)(?:\s*=|['"]\s*:)\s*)
        (?:\\?'(?:\\.|[^'\\])*(?:'|\Z) | \\?"(?:\\.|[^"\\])*(?:"|\Z) | (?:\\.|[^\s\\])+)""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def without_passwords(text: str) -> str:
    r"""Return `text` with every password blotted out that is marked as one: by its name, or by its place in a URI.

    Examples
    --------
    >>> without_passwords("No such command 'postgresql://ann:sesame@db/shop'.")
    "No such command 'postgresql://***@db/shop'."
    >>> without_passwords("missing value after password='open sesame' port=1")
    'missing value after password=*** port=1'

    Notes
    -----
    It rather takes too much than too little: the role's name goes with the password.
    """
    by_place = _BEFORE_AN_AT.sub(_BLOT, _IN_A_URI.sub(f"{_BLOT}@", text))
    return _BY_NAME.sub(rf"\g<name>{_BLOT}", by_place)
