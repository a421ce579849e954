"""What a column's heading means: a name of here, and in what unit its numbers are.

`Volume (000)` is volume in thousands; `Volume ($)` is money and `Volume(%)` a share of something, neither of them a
volume. `Close_AAPL`, `AAPL Close` and ('Close', 'AAPL') are columns of AAPL, and make a wide table.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from volcast.tasks.sources.reading import FileReader

UNITS = {  # the letters of a unit -> its factor; a number such as 000 or 1000 is one of itself
    **dict.fromkeys(["", "shares", "share", "sh", "stk", "stuck", "stucke", "actions", "titres", "株", "股"], 1.0),
    **dict.fromkeys(["hundred", "hundreds", "手"], 1e2),
    **dict.fromkeys(["k", "th", "tsd", "thousand", "thousands", "mille", "千", "千株"], 1e3),
    **dict.fromkeys(["万", "万股", "万株"], 1e4),
    **dict.fromkeys(["lakh", "lakhs", "lac", "lacs"], 1e5),
    **dict.fromkeys(["m", "mm", "mn", "mln", "mio", "mil", "million", "millions", "millionen", "百万", "百万株"], 1e6),
    **dict.fromkeys(["cr", "crore", "crores"], 1e7),
    **dict.fromkeys(["b", "bn", "mrd", "billion", "billions"], 1e9),
}
BESIDE = "in of the number no x s unit units traded trading trade total daily shares share"
CURRENCIES = "usd eur gbp gbx jpy cny rmb inr krw hkd twd cad aud chf sek rs dollar dollars euro euros rupees pence"
AMOUNTS = "value amount turnover notional money cash capital btc eth usdt 円 元 원"
FILLERS, MONEY = frozenset(BESIDE.split()), frozenset(f"{CURRENCIES} {AMOUNTS}".split())
SHARES_OF = {"pct", "percent", "percentage", "change", "chg", "ratio", "yoy", "mom"}
UNKNOWN = "an unknown unit"
OF_PRICES = {"open", "high", "low", "close", "adj_close", "dividend"}


@dataclass(frozen=True)
class Meaning:
    """What one heading says."""

    name: str
    scale: float = 1.0
    rank: int = 0  # 0 as told, 1 by a heading that means nothing else, more by one that may
    not_shares: str = ""  # of a volume that counts something else: what that is


def letters(heading: object) -> str:
    """A heading without case, accents, digits and punctuation."""
    text = unicodedata.normalize("NFKD", str(heading)).casefold()
    return re.sub(r"[\W\d_]", "", text)


@lru_cache(maxsize=4096)
def _meaning(heading: str, names: "Names") -> Meaning | None:
    text = heading.strip()
    bracket = re.search(r"[(\[{](?P<unit>[^)\]}]*)[)\]}]", text)
    rest = f"{text[: bracket.start()]} {text[bracket.end() :]}" if bracket else text
    unit = bracket["unit"] if bracket else ""
    if not re.search(r"[%$€£¥₹]|\d{2}", text) and letters(text) in names.of:
        return names.meaning(letters(text))
    signs = "".join(re.findall(r"[%$€£¥₹]", rest))
    words = re.findall(r"[^\W_]+", rest)
    for count in range(len(words), 0, -1):
        for known, others in ((words[:count], words[count:]), (words[-count:], words[:-count])):
            if letters("".join(known)) in names.of:
                found = names.meaning(letters("".join(known)))
                return _in_unit(found, " ".join([unit, *others, signs]).strip())
    return None


def _in_unit(found: Meaning, unit: str) -> Meaning | None:
    """The meaning in this unit; None for another column that is only called alike, such as Open Interest."""
    words = [letters(word) for word in re.findall(r"[^\W\d_]+", unit)]
    digits = "".join(re.findall(r"\d", unit))
    what = ""
    if "%" in unit or SHARES_OF.intersection(words):
        what = "a percentage"
    elif re.search(r"[$€£¥₹]", unit) or MONEY.intersection(words):
        what = "an amount of money"
    factors = [UNITS.get(word) for word in words if word not in FILLERS]
    if re.fullmatch("1?(0{2,9})", digits):
        factors.append(10.0 ** digits.count("0"))
    elif digits:
        factors.append(None)
    known = [factor for factor in factors if factor is not None]
    scale = 1.0
    for factor in known:
        scale *= factor
    if found.name == "volume":
        unknown = "" if len(known) == len(factors) else f"{unit.strip()!r}, {UNKNOWN}"
        return replace(found, scale=scale, not_shares=what or unknown)
    is_in_money = found.name in OF_PRICES and what == "an amount of money"
    return found if is_in_money or not (what or digits or factors) else None


def is_unit(found: Meaning, text: str) -> bool:
    """Whether a cell under a heading is its unit, such as USD or shares, and no ticker."""
    return (told := _in_unit(found, text)) is not None and not told.not_shares.endswith(UNKNOWN)


@dataclass(frozen=True)
class Names:
    """A table of headings; those in `weak` count where no other column means the same, the later the less."""

    table: tuple[tuple[str, str], ...]
    weak: tuple[frozenset[str], ...] = ()

    @property
    def of(self) -> Mapping[str, str]:
        """The letters of a heading -> its name here."""
        return _as_mapping(self.table)

    def meaning(self, known: str) -> Meaning:
        """Of letters that stand in the table."""
        rank = next((n for n, weak in enumerate(self.weak, start=2) if known in weak), 1)
        return Meaning(self.of[known], rank=rank)

    def known(self, headings: Sequence[object], reader: FileReader) -> set[str]:
        """The names here that a row of headings has, of one table or of a wide one."""
        plain = {found.name for heading in headings if (found := self.find(heading, reader))}
        if len(plain) > 1:
            return plain
        wide = by_ticker(headings, self)
        return {self.of[letters(bare)] for columns in wide.values() for bare in columns.values()}

    def find(self, heading: object, reader: FileReader) -> Meaning | None:
        """What a heading means; None for a column that does not matter."""
        if told := reader.reading.columns.get(str(heading).strip().casefold()):
            return Meaning(told[0], scale=told[1]) if told[0] else None
        return _meaning(str(heading), self)


@lru_cache
def _as_mapping(table: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return {letters(heading): name for heading, name in table}


def chosen_columns(
    headings: Sequence[object], names: Names, reader: FileReader, required: Sequence[str] = ()
) -> dict[str, tuple[int, Meaning]]:
    """Name here -> the position of its column, and what the heading says. Raises SourceUnusable.

    Of two that mean the same, the one that is told or that means nothing else; where both do, they are refused. A
    volume that counts something else than shares is refused where there is no other.
    """
    found: dict[str, list[tuple[int, Meaning]]] = {}
    for position, heading in enumerate(headings):
        if meaning := names.find(heading, reader):
            found.setdefault(meaning.name, []).append((position, meaning))
    chosen: dict[str, tuple[int, Meaning]] = {}
    for name, candidates in found.items():
        usable = [each for each in candidates if not each[1].not_shares or _is_dollar_style(headings, each[0])]
        if not usable and name in required:
            position, meaning = candidates[0]
            heading = str(headings[position])
            reader.refuse(
                f"the column {heading} is {meaning.not_shares}, no count of shares. Expected the volume in shares; "
                f"nothing was taken. If it is one: --columns '{heading}=volume' (or =volume*1000, in thousands)"
            )
        best = [each for each in usable if each[1].rank == min(rank.rank for _, rank in usable)]
        if len(best) > 1:
            both = " and ".join(str(headings[position]) for position, _ in best[:2])
            reader.refuse(
                f"the columns {both} mean the same. Expected one; take one out, or say which: "
                f"--columns '{headings[best[0][0]]}={name.replace('session', 'date')}'"
            )
        if best:
            chosen[name] = best[0]
    return chosen


def _is_dollar_style(headings: Sequence[object], position: int) -> bool:
    """$close, $volume: names of a library (qlib), no units."""
    return str(headings[position]).startswith("$") and {"$close", "$open"} <= {str(each) for each in headings}


def by_ticker(headings: Sequence[object], names: Names) -> dict[str, dict[int, str]]:
    """Of a wide table: ticker -> the positions of its columns, and their headings without it. Empty for another.

    Each ticker has open, high, low, close and volume.
    """
    found: dict[str, dict[int, str]] = {}
    for position, heading in enumerate(headings):
        for ticker, bare in _splits(str(heading)):
            name = names.of.get(letters(bare))
            if ticker and name not in (None, "ticker", "session"):
                found.setdefault(ticker.upper(), {})[position] = bare
                break
    complete = {"open", "high", "low", "close", "volume"}
    return {
        ticker: columns
        for ticker, columns in found.items()
        if complete <= {names.of[letters(bare)] for bare in columns.values()}
    }


def plain_heading(heading: object) -> str:
    """('Date', '') of an index that became a column -> Date; pandas' name for one without."""
    found = re.fullmatch(r"\('([^']+)', ''\)|\('', '([^']+)'\)", str(heading).strip())
    return (found[1] or found[2]) if found else str(heading).strip()


def _splits(heading: str) -> list[tuple[str, str]]:
    """Ways to take a heading for a ticker's column: (ticker, heading without it)."""
    pair = re.fullmatch(r"\('([^']*)', '([^']*)'\)", heading.strip())
    if pair:
        return [(pair[2].strip(), pair[1]), (pair[1].strip(), pair[2])]
    marks = [found.span() for found in re.finditer(r"[_ .:|/-]+", heading)]
    after = [(heading[end:].strip(), heading[:start]) for start, end in marks]
    before = [(heading[:start].strip(), heading[end:]) for start, end in marks]
    return [each for pair in zip(after, before, strict=True) for each in pair]
