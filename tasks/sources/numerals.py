"""Numbers out of text: 1,234,500; 1.234.500,75; 5.23M; $88.03; 1 234; n/a.

1. what Python reads as a number is one
2. currency signs of prices, spaces and apostrophes go; K, M and B become their factors
3. which of dot and comma is the decimal sign, each column says by what can be nothing else (1,234,500 and 88,02), else
   what the person said, else the file's other columns; else a comma separates thousands
4. a volume such as 512.000 is refused where nothing says whether the dot separates thousands
"""

from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import pandas as pd

from volcast.tasks.sources.reading import FileReader

MISSING = [  # in any case
    "", "-", "--", "–", "—", ".", "null", "none", "nan", "na", "n/a", "n.a.", "#n/a", "<na>", "nat", "nil", "n/d",
]  # fmt: skip
CURRENCY = r"(?:US\$|HK\$|A\$|C\$|[$€£¥₹₩]|USD|EUR|GBP|GBX|JPY|INR|CHF|Rs\.?)"
FACTORS = {
    "k": 1e3, "th": 1e3, "tsd": 1e3, "thousand": 1e3, "千": 1e3, "万": 1e4, "萬": 1e4, "lakh": 1e5, "lac": 1e5,
    "m": 1e6, "mn": 1e6, "mln": 1e6, "mio": 1e6, "mil": 1e6, "million": 1e6, "百万": 1e6,
    "cr": 1e7, "crore": 1e7, "億": 1e8,
    "亿": 1e8, "b": 1e9, "bn": 1e9, "mrd": 1e9, "billion": 1e9, "t": 1e12,
}  # fmt: skip
SUFFIXED = rf"^(?P<number>.*\d)(?P<factor>{'|'.join(sorted(FACTORS, key=len, reverse=True))})\.?$"
RATIO = r"(?P<new>\d+(?:\.\d+)?) ?(?:[:/]|-?for-?|-?to-?|for|to) ?(?P<old>\d+(?:\.\d+)?)"  # 4:1, 1/20, 3-for-2
FEW_SHARES = 1000  # a day; fewer may be thousands of them
NO_NUMBER = "is not a number. Expected one, or nothing where the value is missing."


def numbers_of(
    columns: Mapping[str, pd.Series], reader: FileReader, *, is_scaled: bool = False
) -> dict[str, pd.Series]:
    """float64 for each column, by its name here; NaN where a value is missing, and inf where a text is no number.

    With `is_scaled`, the volume's heading says its unit.
    """
    doubtful = "" if is_scaled or reader.reading.tells_volume else "volume"
    done = {name: _plain(column, is_doubtful=name == doubtful) for name, column in columns.items()}
    odd = {name: _bare(name, columns[name]) for name, numbers in done.items() if numbers is None}
    if not odd:
        return {name: numbers for name, numbers in done.items() if numbers is not None}
    signs = {name: "" if name == doubtful and _may_be_thousands(texts) else _sign(texts) for name, texts in odd.items()}
    found = {sign for sign in signs.values() if sign}
    if any(numbers is not None and (numbers % 1 != 0).any() for numbers in done.values()):
        found.add(".")
    elsewhere = found.pop() if len(found) == 1 else ""
    for name, texts in odd.items():
        sign = signs[name] or reader.reading.decimal
        if not sign and elsewhere != "," and name == doubtful and _may_be_thousands(texts):
            _refuse_thousands(columns[name], reader)
        done[name] = _converted(texts, sign or elsewhere or ".")
    return {name: numbers for name, numbers in done.items() if numbers is not None}


def with_ratios(column: pd.Series) -> pd.Series:
    """The column of splits with new shares for one old one in the place of a text such as 4:1."""
    if is_typed(column):
        return column
    terms = column.astype(str).str.strip().str.lower().str.extract(f"^{RATIO}$").astype("float64")
    return column.astype(object).mask(terms["old"] > 0, (terms["new"] / terms["old"]).astype(str))


def is_typed(column: pd.Series) -> bool:
    """Whether its numbers are no text."""
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def is_missing(column: pd.Series) -> pd.Series:
    """Which cells stand for no value."""
    if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.isna()
    return column.isna() | column.astype(str).str.strip().str.lower().isin(MISSING)


def _plain(column: pd.Series, *, is_doubtful: bool) -> pd.Series | None:
    """The numbers of a column that has no others; None where text is to be looked at."""
    if is_typed(column):
        return column.astype("float64")
    numbers = pd.Series(pd.to_numeric(_cells(column), errors="coerce"), column.index, dtype="float64")
    if np.isinf(numbers).any() or (numbers.isna().any() and not (numbers.notna() | is_missing(column)).all()):
        return None
    if is_doubtful and (numbers.abs() < FEW_SHARES).mean() > 0.5 and _may_be_thousands(_bare("volume", column)):
        return None
    return numbers


def _cells(column: pd.Series) -> pd.Series:
    """Without pandas' own idea of categories and truths."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(object)
    return column.astype(str) if pd.api.types.is_bool_dtype(column.dtype) else column


def _bare(name: str, column: pd.Series) -> pd.Series:
    """Text without what is no digit, sign, dot, comma or factor; NaN where the value is missing."""
    texts = column.astype(str).str.strip()
    if name != "volume":  # an amount of money is no count of shares
        texts = texts.str.replace(rf"^({CURRENCY})\s*(?=[\d.,+-])|(?<=\d)\s*({CURRENCY})$", "", regex=True)
    texts = texts.str.replace(r"(?<=[\d.,])[\s'’_\u00a0\u202f]+(?=\w)", "", regex=True)
    return texts.mask(is_missing(column))


def _sign(texts: pd.Series) -> str:
    """The decimal sign that a column's texts leave no doubt of, by the most of them; empty for none."""
    digits = texts.dropna().str.replace(r"[^\d.,]", "", regex=True)
    votes = {}
    for sign, other in ((",", "."), (".", ",")):
        s, o = "\\" + sign, "\\" + other
        # one sign, and other than three digits behind it, or none or more than three or a zero before it
        single = rf"\d*{s}(?!\d{{3}}$)\d+|(?:|0\d*|\d{{4,}}){s}\d{{3}}"
        votes[sign] = digits.str.fullmatch(rf"{single}|[\d{o}]*{o}[\d{o}]*{s}\d+|\d{{1,3}}(?:{o}\d{{3}}){{2,}}").sum()
    best = max(votes, key=lambda sign: votes[sign])
    return best if votes[best] and min(votes.values()) < votes[best] else ""


def _may_be_thousands(texts: pd.Series) -> bool:
    """Whether a volume is small, and always has three digits behind one dot or comma."""
    known = texts.dropna()
    parts = known.str.extract(r"^(?P<whole>\d+)[.,]\d{3}$")["whole"].dropna().astype("float64")
    return len(parts) > 0 and len(parts) == (~known.str.fullmatch("0*")).sum() and parts.median() < FEW_SHARES


def _refuse_thousands(column: pd.Series, reader: FileReader) -> NoReturn:
    reader.refuse(
        f"column {column.name}: {str(column.iloc[0])!r} may be a number with decimals, or thousands set apart; nothing "
        "in the file says which. Nothing was taken. Say it by: --decimal , (or .), or for thousands of shares "
        f"--columns '{column.name}=volume*1000'"
    )


def _converted(texts: pd.Series, sign: str) -> pd.Series:
    mark = "," if sign == "." else "."
    parts = texts.str.lower().str.extract(SUFFIXED)
    factor = parts["factor"].map(FACTORS).astype("float64").fillna(1.0)
    digits = parts["number"].fillna(texts)
    grouped = rf"[+-]?(?:\d+|\d{{1,3}}(?:\{mark}\d{{2,3}})*\{mark}\d{{3}}|)(?:\{sign}\d*)?(?:[eE][+-]?\d+)?"
    bare = digits.str.replace(mark, "", regex=False).str.replace(sign, ".", regex=False)
    numbers = pd.Series(pd.to_numeric(bare.where(digits.str.fullmatch(grouped)), errors="coerce"), texts.index)
    scaled = numbers.astype("float64") * factor
    whole = np.rint(scaled)  # 7.17 times a million is a hair off
    scaled = scaled.mask((factor != 1) & np.isclose(scaled, whole, rtol=1e-12, atol=1e-6), whole)
    return scaled.mask(numbers.isna() & texts.notna(), np.inf)
