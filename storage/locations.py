"""Paths and URLs as they may be shown and recorded: without the credentials that a URL can carry.

A URL carries credentials as user:password before its host, or in its query, as signed URLs do (`?sig=…`, `?token=…`).
Neither a source nor a store is given so: whatever names one is recorded by Prefect, in manifests and in logs. `shown`
takes them out of any text, and what it has been through is told by `carries_credentials` as before, and refused.
"""

import re
from urllib.parse import unquote

MASK = "…"
WORDS = ("sig", "token", "key", "secret", "pass", "pwd", "auth", "cred", "hmac", "jwt")  # in a parameter's name
OF_FILES = ("date-format", "decimal", "columns", "ticker")  # what a source may say behind its file (docs/files.md)
LONG = 24  # characters without a separator: a key or a signature under whatever name; dates and tickers are shorter

_USER = re.compile(r"(?<=://)(?:[^\s/?#@]*|[^\s/?#@:]*:\S*)@")  # a password may itself hold / ? # or @
_PARAMETER = re.compile(r"([?&;#])([^\s=?&;#]+)=([^\s&;#'\"]+)")
_VALUE = re.compile(rf"[\w+/=~%.\-]{{{LONG},}}|{MASK}")
# For a JSON schema, so that Prefect's server refuses a run with such a parameter before it keeps it.
PATTERN = r"^(?!.*://[^/?#]*@)(?!.*://.*[?&;#][^=&;#]*(?:{})[^=&;#]*=)".format(
    "|".join("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in WORDS)
)
HOW = (
    "Put the whole URL into an environment variable and name that, as files:env:NAME; the keys of a bucket belong into "
    "AWS_*, GOOGLE_* or AZURE_*"
)


def shown(text: str) -> str:
    """The text with a mask in place of user, password, signatures and tokens of every URL in it."""
    return _PARAMETER.sub(_masked, _USER.sub(f"{MASK}@", text))


def carries_credentials(location: str) -> bool:
    """Whether there is something to hide in a path or URL, or was before `shown`."""
    parameters = (_is_secret(*found.groups()[1:]) for found in _PARAMETER.finditer(location))
    return "://" in location and (_USER.search(location) is not None or any(parameters))


def require_no_credentials(location: str) -> None:
    """Raises ValueError, which does not repeat them."""
    if carries_credentials(location):
        raise ValueError(
            f"{shown(location)}: expected a URL without user, password or signature: it is recorded and shown. {HOW}."
        )


def _masked(found: re.Match[str]) -> str:
    separator, name, value = found.groups()
    return f"{separator}{name}={MASK}" if _is_secret(name, value) else found[0]


def _is_secret(name: str, value: str) -> bool:
    plain = unquote(name).lower()
    if plain in OF_FILES:
        return False
    return any(word in plain for word in WORDS) or _VALUE.fullmatch(value) is not None
