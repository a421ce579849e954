"""What installed packages of somebody else's add to volcast by entry points: docs/extend.md.

A package is imported when what it adds is named, and one with a baseline for every test. What volcast has itself cannot
be replaced. Two packages that add the same name are refused, both of them.
"""

from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any, Literal, get_args

from volcast.models.errors import UnusablePlugin

Group = Literal["volcast.sources", "volcast.baselines", "volcast.cells"]


def added_names(group: Group) -> list[str]:
    """The names that installed packages add."""
    return sorted({each.name for each in entry_points(group=group)})


def load_added(group: Group, name: str) -> Any | None:
    """What a package adds by the name; None where no installed one does. Raises UnusablePlugin."""
    found = [each for each in entry_points(group=group) if each.name == name]
    if not found:
        return None
    if len(found) > 1:
        packages = " and ".join(sorted(map(package_of, found)))
        raise UnusablePlugin(f"{name} of {group} is added by {packages}. Uninstall all but one of them.")
    try:
        return found[0].load()
    except Exception as error:
        raise UnusablePlugin(
            f"{name} of {group} cannot be loaded from the package {package_of(found[0])} ({error!r}). Mend "
            "or uninstall it."
        ) from error


def adding_packages() -> dict[str, str]:
    """Name and version of each installed package that adds something to volcast."""
    adding = (each.dist for group in get_args(Group) for each in entry_points(group=group))
    return {dist.name: dist.version for dist in adding if dist}


def is_installed(package: str) -> bool:
    """Whether a package of that name is there."""
    return any(distributions(name=package))


def package_of(entry_point: EntryPoint) -> str:
    """Name and version of the package that an entry point is of."""
    return f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else entry_point.value
