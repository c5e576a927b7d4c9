"""The gate: may the challenger replace the champion?

Both models draw from the same prompts and noise, 256 pictures, then twice as many, and so on. At each look every rule
says "held", "broken" or "open"; the comparison ends as soon as they give a verdict, or with the last picture:

- the primary measure is held when it is surely better, and broken when it surely improves by less than is worth a
  change ("surely": by the bounds of :mod:`.sequential`, which allow for the repeated looks);
- a guard is held when it is surely not worse by more than its margin, and broken when it surely is. Several guards may
  be broken by chance, so that is judged by Holm's procedure (1979);
- PASS needs all of them held, so one that is held by mistake costs no more than its own chance: no correction is due.

PASS also asks whether the gain would stand on other held-out pictures: with few of those it may be theirs alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy.stats import norm

from darkroom.errors import RecipeError
from darkroom.recipe import Gate

from .contrasts import MEASURES, Contrast, Drawn, Held, contrast, worth
from .sequential import bounds, ladder, needed, planned
from .sets import NEIGHBOURS

Decision = Literal["PASS", "FAIL", "INCONCLUSIVE"]
State = Literal["held", "broken", "open"]
Draw = Callable[[int, int], Drawn]
"""The pictures from the first number up to, but without, the second."""


@dataclass(frozen=True)
class Rule:
    """A rule of the gate after the last look."""

    name: str
    """The measure as the recipe calls it."""
    measure: str
    """The measure as it is called everywhere, with its extractor."""
    state: State
    challenger: float
    champion: float
    gain: float
    low: float
    high: float
    """``low`` to ``high`` holds the true gain, allowing for all looks."""
    wanted: float
    """The primary: the smallest gain worth a change. A guard: minus the margin."""
    words: str


@dataclass(frozen=True)
class Look:
    """The primary measure's gain and its interval when ``count`` pictures of each were drawn."""

    count: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """A verdict, its reasons in words, and what it rests on; ``rules`` has the primary measure first."""

    decision: Decision
    reasons: tuple[str, ...]
    measure: str
    """The primary one."""
    alpha: float = 0.0
    first: int = 0
    """Pictures of each model at the first look."""
    count: int = 0
    """At the last one."""
    planned: int = 0
    """What the spread at the first look asked for."""
    budget: int = 0
    rules: tuple[Rule, ...] = ()
    looks: tuple[Look, ...] = ()
    """Those that were taken."""
    bounds: tuple[float, ...] = ()
    """How many standard errors the intervals reach at each planned look."""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Judgement":
        """The judgement that ``asdict`` took apart."""
        return cls(
            **plain
            | {name: tuple(plain[name]) for name in ("reasons", "notes", "bounds")}
            | {"rules": tuple(Rule(**one) for one in plain["rules"])}
            | {"looks": tuple(Look(**one) for one in plain["looks"])}
        )

    def plain(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


def judge(new: Draw, old: Draw, held: Held, gate: Gate, names: Mapping[str, str], most: int | None = None) -> Judgement:
    """Compare the challenger (``new``) with the champion (``old``) until there is a verdict.

    ``names`` say how the measures are called with their extractors. A gate that names no primary measure means the
    Fréchet distance here; :func:`darkroom.evaluation.verdict.settled` decides before. ``most``: no more pictures than
    these exist, and all are looked at once (autoencoders rebuild the held-out pictures and draw no others). Raises
    :class:`RecipeError` for a primary measure that these pictures do not have.
    """
    main = gate.measure or "frechet"
    counts = [most] if most else ladder(gate.first, gate.count)
    drawn = [draw(0, counts[0]) for draw in (new, old)]
    which: list[str] = [main]
    margins: dict[str, float] = {name: share for name, share in gate.guards.items() if name != main}
    notes: list[str] = []
    contrasts = _contrasts([*which, *margins], drawn, held, counts[0])
    for name in margins:
        if math.isfinite(contrasts[name].gain) and math.isfinite(contrasts[name].error):
            which.append(name)
        else:
            notes.append(f"{names[name]} guards nothing here: it cannot be taken of these pictures")
    if not math.isfinite(contrasts[main].gain):
        raise RecipeError(
            f"gate.measure = {main!r}: {names[main]} cannot be taken of these pictures (a fit to "
            f"prompts needs some, and neighbours need more than {NEIGHBOURS} held-out pictures): take another measure"
        )

    # The plan, from the spread of the first look alone and never from its gain.
    sizes = {name: worth(MEASURES[name], drawn[1], held, counts[0]) for name in which}
    wanted = {name: -margins[name] * sizes[name] for name in which[1:]}
    wanted[main] = gate.gain * sizes[main]
    looks = max(
        planned(counts, one.error * math.sqrt(counts[0]), abs(wanted[name]), gate.power, gate.alpha)
        for name, one in contrasts.items()
        if name in which
    )
    counts, budget = counts[:looks], counts[-1]
    shares = [count / counts[-1] for count in counts]
    reaches = {level: bounds(shares, gate.alpha / level) for level in range(1, len(which) + 1)}

    seen: list[Look] = []
    for look, count in enumerate(counts):
        if look:
            more = [draw(counts[look - 1], count) for draw in (new, old)]
            drawn = [have.and_then(more[place]) for place, have in enumerate(drawn)]
            contrasts = _contrasts(which, drawn, held, counts[0])
        primary = contrasts[main]
        reach = reaches[1][look] * primary.error
        seen.append(Look(count, primary.gain, primary.gain - reach, primary.gain + reach))
        states = _states(which, contrasts, wanted, [reaches[level][look] for level in sorted(reaches)])
        steady = _stands_elsewhere(primary, gate.alpha)
        decision = _decided(states, steady)
        if decision != "INCONCLUSIVE":
            break

    rules = tuple(
        _rule(name, names[name], states[name], contrasts[name], wanted[name], reaches[1][look]) for name in which
    )
    reasons = [rule.words for rule in rules if rule.state != "held" or decision == "PASS"]
    if decision == "INCONCLUSIVE":
        reasons += _what_would_help(rules, contrasts, steady, gate, count, most or budget, most is None, reaches[1][-1])
    return Judgement(
        decision,
        tuple(reasons),
        names[main],
        gate.alpha,
        counts[0],
        count,
        counts[-1],
        budget,
        rules,
        tuple(seen),
        tuple(reaches[1]),
        tuple(notes),
    )


def _contrasts(which: Sequence[str], drawn: Sequence[Drawn], held: Held, block: int) -> dict[str, Contrast]:
    return {name: contrast(MEASURES[name], drawn[0], drawn[1], held, block) for name in which}


def _states(
    which: Sequence[str], contrasts: Mapping[str, Contrast], wanted: Mapping[str, float], reaches: Sequence[float]
) -> dict[str, State]:
    """The state of each rule; ``reaches[k]`` is the bound at alpha / (k + 1), the primary measure comes first."""
    primary, guards = which[0], which[1:]
    one = contrasts[primary]
    states: dict[str, State] = {primary: "open"}
    if one.beyond(0) > reaches[0]:
        states[primary] = "held"
    elif one.beyond(wanted[primary]) < -reaches[0]:
        states[primary] = "broken"
    states |= {name: "held" if contrasts[name].beyond(wanted[name]) > reaches[0] else "open" for name in guards}
    # Holm: the worst guard must be worse than chance at alpha / m, the next at alpha / (m - 1), up to the first not.
    order = sorted(guards, key=lambda name: contrasts[name].beyond(wanted[name]))
    for place, name in enumerate(order):
        if contrasts[name].beyond(wanted[name]) > -reaches[len(order) - place - 1]:
            break
        states[name] = "broken"
    return states


def _stands_elsewhere(primary: Contrast, alpha: float) -> bool:
    """Whether the gain exceeds chance also where the held-out pictures are a sample like the drawn ones."""
    error = math.hypot(primary.error, primary.error_of_real)
    return primary.gain >= float(norm.isf(alpha)) * error


def _decided(states: Mapping[str, State], steady: bool) -> Decision:
    if "broken" in states.values():
        return "FAIL"
    return "PASS" if steady and set(states.values()) == {"held"} else "INCONCLUSIVE"


def _rule(name: str, measure: str, state: State, one: Contrast, wanted: float, reach: float) -> Rule:
    low, high = one.gain - reach * one.error, one.gain + reach * one.error
    values = f"{measure} is {one.challenger:.4g}, the champion's {one.champion:.4g}"
    interval = f"the true gain lies between {low:+.3g} and {high:+.3g}"
    if wanted > 0:
        ending = {
            "held": f"better, and surely so: {interval}",
            "broken": f"no improvement worth a change, which would be {wanted:.3g}: {interval}",
            "open": f"that may be chance: {interval}",
        }[state]
    else:
        ending = {
            "held": f"surely not worse by more than the {-wanted:.3g} that the recipe allows: {interval}",
            "broken": f"worse by more than the {-wanted:.3g} that the recipe allows: {interval}",
            "open": f"that may be worse by more than the {-wanted:.3g} that the recipe allows: {interval}",
        }[state]
    return Rule(name, measure, state, one.challenger, one.champion, one.gain, low, high, wanted, f"{values}; {ending}")


def _what_would_help(
    rules: Sequence[Rule],
    contrasts: Mapping[str, Contrast],
    steady: bool,
    gate: Gate,
    count: int,
    budget: int,
    more: bool,
    reach: float,
) -> list[str]:
    """What a person can do about an open verdict."""
    found = []
    if open_rules := [rule for rule in rules if rule.state == "open"]:
        asked = max(
            needed(contrasts[one.name].error * math.sqrt(count), abs(one.wanted), gate.power, reach)
            for one in open_rules
        )
        if asked > budget and not more:
            found.append(f"about {math.ceil(asked):,} held-out pictures would tell, and there are {budget:,}")
        elif asked > budget:
            found.append(
                f"about {math.ceil(asked):,} pictures of each would tell, and gate.count allows {budget:,}: raise "
                "it, or wait for a model that differs more"
            )
        else:
            found.append(
                f"{count:,} pictures of each model would have shown an improvement of {gate.gain:.0%} with a chance of "
                f"{gate.power:.0%}: if there is one, it is smaller"
            )
    elif not steady:
        found.append("the gain may be due to these held-out pictures: more of them would tell")
    return found
