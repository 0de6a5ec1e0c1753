"""What a result can have in addition: verdicts, and the features by other rules and modes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..audio._checks import MODES, as_choice
from ..belief.feature_maps import FEATURE_RULES
from ..network.choosing import as_list
from .planning import ALL

__all__ = [
    "ADDITIONS", "NONE", "Additions", "Version", "additions_beyond", "additions_of",
    "read_versions",
]


#: The names of the settings that say which additions there are.
ADDITIONS = ("trust", "other rules and modes")


class Version(NamedTuple):
    """Another rule or mode by which all features are seen and heard."""

    key: str
    """The rule or the mode that differs; also the name of the folder in the folder of a layer."""
    rule: str
    mode: str


class Additions(NamedTuple):
    """Which additions are asked for."""

    trust: bool
    versions: tuple[Version, ...]

    @property
    def settings(self) -> dict[str, str]:
        """As `Plan.settings`; an addition that is not asked for has no entry."""
        keys = ", ".join(version.key for version in self.versions)
        found = dict(zip(ADDITIONS, ("yes" if self.trust else "", keys), strict=True))
        return {name: value for name, value in found.items() if value}


#: No additions.
NONE = Additions(False, ())


def additions_of(
    how: Mapping[str, Any], mode: str, *, trust: bool = False,
    rules: str | Iterable[str] = (), modes: str | Iterable[str] = (),
) -> Additions:
    """The additions to features that are explained by a certain rule and mode.

    Parameters
    ----------
    how : mapping
        Its ``rule`` is the rule by which the features are explained.
    mode : str
        The mode in which they are explained.
    trust : bool
        Whether verdicts are asked for.
    rules, modes : iterable of str, or "all"
        Other rules and modes. The features' own may be among them, and adds nothing.

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


def additions_beyond(
    settings: Mapping[str, Any], others: Mapping[str, Any]
) -> dict[str, list[str]]:
    """The additions of a result with `settings` that one with the settings `others` lacks.

    Returns
    -------
    dict
        For the name of each setting that has such additions, which they are.
    """
    beyond = {
        name: [one for one in _listed(settings, name) if one not in _listed(others, name)]
        for name in ADDITIONS
    }
    return {name: ones for name, ones in beyond.items() if ones}


def _listed(settings: Mapping[str, Any], name: str) -> list[str]:
    return [one for one in str(settings.get(name, "")).split(", ") if one]


def read_versions(records: Any) -> list[Version]:
    """The versions that a manifest lists. The manifest may come from anybody."""
    found = []
    for record in records:
        key = as_choice("version", record["key"], (*FEATURE_RULES, *MODES))
        rule = as_choice("rule", record["rule"], FEATURE_RULES)
        found.append(Version(key, rule, as_choice("mode", record["mode"], MODES)))
    return found


def _chosen(name: str, wanted: Any, choices: tuple[str, ...]) -> list[str]:
    """The names that are wanted, in the order of `choices`."""
    if isinstance(wanted, str) and wanted == ALL:
        return [*choices]
    asked = [wanted] if isinstance(wanted, str) else as_list(name, wanted)
    for one in asked:
        as_choice(name, one, choices)
    return [one for one in choices if one in asked]
