"""What a result has beside its features if it is asked for: how far to believe them, and the same
features by other rules and modes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..audio._checks import MODES, as_choice
from ..belief.feature_maps import FEATURE_RULES
from ..network.choosing import as_list
from .planning import ALL

__all__ = ["ADDITIONS", "NONE", "Additions", "Version", "additions_of", "read_versions"]


#: The settings that say what there is beside the features.
ADDITIONS = ("trust", "other rules and modes")


class Version(NamedTuple):
    """Another way to see and hear all features."""

    key: str
    """The rule or the mode in which it differs; also the name of its folder in that of a layer."""
    rule: str
    mode: str


class Additions(NamedTuple):
    """What is asked for beside the features."""

    trust: bool
    versions: tuple[Version, ...]

    @property
    def settings(self) -> dict[str, str]:
        """As `Plan.settings`; nothing for what is not asked for."""
        keys = ", ".join(version.key for version in self.versions)
        found = dict(zip(ADDITIONS, ("yes" if self.trust else "", keys), strict=True))
        return {name: value for name, value in found.items() if value}

    def extend(self, settings: Mapping[str, Any]) -> bool:
        """Whether all that a result with these settings has beside its features is here, too."""
        own = self.settings
        return all(
            {*str(settings.get(name, "")).split(", ")} <= {"", *own.get(name, "").split(", ")}
            for name in ADDITIONS
        )


#: Nothing beside the features.
NONE = Additions(False, ())


def additions_of(
    how: Mapping[str, Any], mode: str, *, trust: bool = False,
    rules: str | Iterable[str] = (), modes: str | Iterable[str] = (),
) -> Additions:
    """What is asked for beside features that are explained in a certain way.

    Parameters
    ----------
    how : mapping
        With the ``rule``.
    mode : str
    trust : bool
    rules, modes : iterable of str, or "all"
        Their own one may be among them.

    Raises
    ------
    ParameterError
        If there is no such rule or mode.
    """
    chosen = _chosen("rules", rules, FEATURE_RULES), _chosen("modes", modes, MODES)
    versions = [
        *(Version(rule, rule, mode) for rule in chosen[0] if rule != how["rule"]),
        *(Version(other, how["rule"], other) for other in chosen[1] if other != mode),
    ]
    return Additions(trust, tuple(versions))


def read_versions(records: Any) -> list[Version]:
    """The versions that a manifest lists, which anybody may have written."""
    found = []
    for record in records:
        key = as_choice("version", record["key"], (*FEATURE_RULES, *MODES))
        rule = as_choice("rule", record["rule"], FEATURE_RULES)
        found.append(Version(key, rule, as_choice("mode", record["mode"], MODES)))
    return found


def _chosen(name: str, wanted: Any, choices: tuple[str, ...]) -> list[str]:
    """Those wanted, in the order in which they exist."""
    if isinstance(wanted, str) and wanted == ALL:
        return [*choices]
    asked = [wanted] if isinstance(wanted, str) else as_list(name, wanted)
    for one in asked:
        as_choice(name, one, choices)
    return [one for one in choices if one in asked]
