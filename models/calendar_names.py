"""The names of markets' calendars, as exchange_calendars has them; it is imported only when one is looked up."""

from volcast.models.errors import UnknownCalendar
from volcast.models.text import brief

NEW_YORK = "XNYS"  # the calendar of whatever names none
MAJOR = (  # those that a market is looked for among, when its dates are not those of the calendar that it was given
    *("XNYS", "XTSE", "BVMF", "XMEX", "XLON", "XETR", "XPAR", "XSWX", "XMIL", "XMAD", "XSTO", "XJSE"),
    *("XTKS", "XHKG", "XSHG", "XTAI", "XKRX", "XBOM", "XSES", "XASX", "CMES", "24/5", "24/7"),
)


def market(calendar: str) -> str:
    """What a sentence calls the market of a calendar."""
    return "the market" if calendar == NEW_YORK else calendar


def calendar_named(word: str) -> str:
    """The name of a calendar, written in any case or by an alias: LSE is XLON. Raises UnknownCalendar."""
    if word == NEW_YORK:
        return word
    from exchange_calendars import get_calendar_names, resolve_alias

    known = {name.upper(): name for name in get_calendar_names()}
    if word.strip().upper() not in known:
        raise UnknownCalendar(
            f"{brief(word)} is no calendar of exchange_calendars. Expected a market's name, such as XNYS, XLON, XETR, "
            "XTKS, or 24/7"
        )
    return resolve_alias(known[word.strip().upper()])
