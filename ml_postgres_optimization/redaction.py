"""Blot passwords out of texts that somebody will read: a last line, for what was typed in the wrong place."""

from __future__ import annotations

import re

_BLOT = "***"
# A URI up to a space or quote; what follows up to an @ counts where a password holds such a character.
_URI = re.compile(r"""://(?P<uri>[^\s'"]+)(?P<more>[^\n@:]*@)?""")
# Hosts with ports, which are no user with a password.
_HOSTS = re.compile(r"(?:(?:\[[^\]]*\]|[^:,]*)(?::\d*)?(?:,|\Z))*")
# The same where the scheme is gone, since the URI was taken apart at the wrong place.
_BEFORE_AN_AT = re.compile(r'(?<=:)[^\s:/@"]+(?=@)')
# ``password=…`` of libpq and of a URI, quoted or not; ``password: …``, also of a mapping that is shown;
# ``PASSWORD '…'`` or ``$$…$$`` of SQL; ``--password …``; libpq's secrets by other names. But ``pwd=/…`` is a folder.
_BY_NAME = re.compile(
    r"""(?P<name>(?:
            (?:password|passwd|passphrase|pwd(?!\s*=\s*/)|\w+_secret|scram_\w+_key)(?:\s*=|['"]?\s*:)\s*
            | password\s+e?(?=['$]) | --password\s+
        ))
        (?:(?P<tag>\$\w*\$).*?(?:(?P=tag)|\Z)
            | \\?'(?:\\.|[^'\\])*(?:'|\Z) | \\?"(?:\\.|[^"\\])*(?:"|\Z) | (?:\\.|[^\s\\])+)""",
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
    by_place = _BEFORE_AN_AT.sub(_BLOT, _URI.sub(_blotted, text))
    return _BY_NAME.sub(rf"\g<name>{_BLOT}", by_place)


def _blotted(found: re.Match[str]) -> str:
    """Return a URI without user and password; as it is where it has no password."""
    uri, more = found["uri"], found["more"] or ""
    before, at, after = uri.rpartition("@")
    if at:
        return f"://{_BLOT}@{after}{more}" if ":" in before else found[0]
    if _HOSTS.fullmatch(re.split("[/?#]", uri, maxsplit=1)[0]):
        return found[0]
    return f"://{_BLOT}@" if more else f"://{_BLOT}"
