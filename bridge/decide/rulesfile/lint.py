"""Lint of rules.toml: warnings of what it may say but surely does not mean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import product

from bridge.decide.rules.gates import Mute
from bridge.decide.rules.incidents import Absence, Backlog, FanIn, Threshold
from bridge.decide.rules.matching import Condition, DurationCondition, LevelSpec, PresenceCondition, Rule, TextCondition
from bridge.decide.rules.picks import Pick, led_to
from bridge.decide.rulesfile.errors import Path
from bridge.decide.rulesfile.incidents import ANY
from bridge.decide.rulesfile.tables import Tables, WatchTable
from bridge.decide.text.globs import is_glob
from bridge.decide.text.times import human
from bridge.decide.text.values import STATE_WORDS, States, instead, listing, strings, suggest
from bridge.model import DONE, GONE, KNOWN_QUEUE_TYPES, KNOWN_TAGS, NEW, RUNNING, SUBMITTED, Watch
from bridge.notifiers import Notifier

_Values = Callable[[Watch], Iterable[str]]
_POLLED: Mapping[str, _Values] = {
    "tag": lambda watch: (stream.tag for stream in watch.streams),
    "bucket": lambda watch: (watch.place.bucket,),
    "region": lambda watch: (watch.place.region,),
    "watch": lambda watch: (watch.name,),
}
_MOST_NARROWED = 100  # pairs of bucket and tag that a rule is about; of texts that a condition wants and excludes
_MOST_TRIED = 100_000  # globs held against queues, of a whole file
_MOST_COMPARED = 50  # rules that stop, for one rule

Finding = tuple[tuple[str, ...], str]  # the keys of what is wrong, as in ("match", "tag"), and why
_Key = tuple[bool, str, str]  # of level rules?, a field, a text or glob that it may match


class Linter:
    """Notes warnings."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def _note(self, path: Path, text: str) -> None:
        self._tables.note(path, text, warning=True)

    def of_watch(self, watch: WatchTable, at: int, aliases: Mapping[str, str]) -> None:
        for tag in watch.tags:
            if tag not in KNOWN_TAGS and not self._tables.has_enough(warning=True):
                self._note(("watch", at, "tags"), f'"{tag}" is not a documented tag{suggest(tag, KNOWN_TAGS)}')
        if watch.queue_type and watch.queue_type not in KNOWN_QUEUE_TYPES:
            near = instead(watch.queue_type, KNOWN_QUEUE_TYPES)
            self._note(("watch", at, "queue_type"), f'"{watch.queue_type}" is not a documented queue type{near}')
        for queue in watch.queues or ():
            if text := _nearly_alias(queue, aliases):
                self._note(("watch", at, "queues"), text)

    def of_rules(
        self,
        rules: Sequence[tuple[int, Rule]],
        mutes: Sequence[tuple[int, Mute]],
        watches: Sequence[Watch],
        aliases: Mapping[str, str],
        keep: timedelta,
    ) -> None:
        names = {queue: name for name, queue in aliases.items()}
        for name, queue in aliases.items():
            if names[queue] != name:
                self._note(("alias", "queue", name), f'is the queue "{names[queue]}" too, and is shown by that name')
        polled = Polled(watches, aliases)
        for at, rule in rules:
            self._of_rule(rule, ("rule", at), polled)
            self._note_all(_of_incidents(rule, keep), ("rule", at))
        self._of_unless(rules, aliases)
        for at, mute in mutes:
            scope = mute.scope
            self._note_all(polled.findings(scope.was, scope.to, scope.conditions), ("mute", at))
        of_jobs = [(at, rule) for at, rule in rules if not (rule.blind or rule.incident)]
        for place, above in _rules_that_never_fire(rule for _, rule in of_jobs):
            stopped = f'rule "{above.name}" (line {above.line})'
            text = f"never fires: {stopped} matches all that it does, and stops"
            if not rule.level and (rule.to.words & {SUBMITTED, RUNNING}) - above.to.words:
                text = f"fires for inferred states only: {stopped} matches all else that it does, and stops"
            self._note(("rule", of_jobs[place][0]), text)

    def _of_unless(self, rules: Sequence[tuple[int, Rule]], aliases: Mapping[str, str]) -> None:
        named = {rule.name: rule for _, rule in rules if rule.incident}
        for at, rule in rules:
            if (other := named.get(rule.unless or "")) and (field := _apart(rule, other, aliases)):
                text = f'rule "{other.name}" never has an incident for the same {field}: its match.{field} names others'
                self._note_all([(("unless",), text)], ("rule", at))

    def _note_all(self, findings: Iterable[Finding], path: tuple[str, int]) -> None:
        if not self._tables.has_enough(warning=True):
            for keys, text in findings:
                self._note((*path, *keys), text)

    def _of_rule(self, rule: Rule, path: tuple[str, int], polled: Polled) -> None:
        if self._tables.has_enough(warning=True):
            return
        key, named = _named_states(rule)
        self._note_all(_undocumented(key, named), path)
        self._note_all(polled.findings(rule.was, ANY, rule.conditions), path)
        forgotten = [state for state in (SUBMITTED, NEW) if state not in rule.was]
        if forgotten and RUNNING in (rule.was.exact or ()) and named.exact and named.exact <= DONE:
            text = f"misses jobs that finish between two polls: leave out from, or add {' and '.join(forgotten)}"
            self._note((*path, "from"), text)
        spans = {"for": rule.level.after, "repeat": rule.level.repeat} if rule.level else {"blind": rule.blind}
        if isinstance(rule.incident, Absence | Backlog):
            spans = {"for": rule.incident.after}
        for key, span in spans.items():
            if span and span < (every := polled.every(rule.conditions)):
                text = f"{_human(span)} is less than the {_human(every)} between two polls, and only polls notice it"
                self._note((*path, key), text)

    def of_use(self, notifiers: Mapping[str, Notifier], picks: Mapping[str, Pick]) -> None:
        """Warn of what no rule names; rules that are wrong elsewhere count too."""
        if not any(True for _ in self._tables.each("watch")):
            self._note((), "there is no [[watch]], so nothing is polled")
        rules = list(self._tables.each("rule"))
        if not rules:
            self._note((), "there is no [[rule]], so nobody is notified")
        escalations = [found for _, rule in rules if isinstance(found := rule.get("escalate"), dict)]
        named = {
            name for found in (*(rule for _, rule in rules), *escalations) for name in strings(found.get("notify"))
        }
        notified = set(led_to(named, picks))
        for name in tuple(notified):  # and whom they fall back to, and these in turn
            notifier = notifiers.get(name)
            while notifier and notifier.fallback and notifier.fallback not in notified:
                notified.add(notifier.fallback)
                notifier = notifiers.get(notifier.fallback)
        for name in (*notifiers, *picks):
            if name not in notified and name not in named and name not in self._tables.entries:
                self._note(("notifier", name), "no rule notifies it")
        for at, rule in rules:
            known = [notifiers[name] for name in led_to(strings(rule.get("notify")), picks) if name in notifiers]
            self._of_digests(rule, at, known)
            escalate = rule.get("escalate")
            later = strings(escalate.get("notify")) if isinstance(escalate, dict) else []
            also = [notifiers[name] for name in led_to(later, picks) if name in notifiers]
            self._of_chat_keys(rule, at, [*known, *also])
        templates = {name for _, rule in rules for name in strings(rule.get("template"))}
        for name in self._tables.names("template"):
            if name not in templates:
                self._note(("template", name), "no rule uses it")

    def _of_digests(self, rule: Mapping[str, object], at: int, notifiers: Sequence[Notifier]) -> None:
        for notifier in notifiers:
            for key in ("group", "throttle"):
                if key in rule and notifier.body:
                    text = f'digests do not have the body of notifier "{notifier.name}": they come in the default form'
                    self._note(("rule", at, key), text)

    def _of_chat_keys(self, rule: Mapping[str, object], at: int, notifiers: Sequence[Notifier]) -> None:
        if rule.get("mention") and notifiers and not any(notifier.calls_people for notifier in notifiers):
            text = "mentions nobody: it is for chats, and notify names no chat that can"
            self._note(("rule", at, "mention"), text)
        if rule.get("urgent") and notifiers and not any(notifier.is_for_people for notifier in notifiers):
            self._note(("rule", at, "urgent"), "has no effect: it is for chats, and notify names no chat")


# --- rules over several jobs ----------------------------------------------------------------------------------------

_SEVERAL = ("output", "watch")  # of one job


def _named_states(rule: Rule) -> tuple[str, States]:
    """Return the states that a rule names, and the key that does."""
    match rule.incident:
        case Threshold(wanted=wanted):
            return "to", wanted
        case Absence(wanted=wanted):
            return "absent", wanted
        case Backlog(states=found):
            return "in", found
    return ("in", rule.level.states) if rule.level else ("to", rule.to)


def _of_incidents(rule: Rule, keep: timedelta) -> Iterator[Finding]:
    spec = rule.incident
    key, span = _looks_back(rule)
    if span and span > keep:
        yield (key,), f"{_human(span)} is longer than jobs are kept: make keep in [defaults] longer than {_human(keep)}"
    if isinstance(spec, Threshold) and (spec.in_a_row or spec.last) and spec.wanted.words >= DONE:
        yield ("to",), "names all ends, so no job ends otherwise: leave out those that are well"
    if isinstance(spec, FanIn) and spec.expect and spec.expect.constant == "1":
        yield ("expect",), "is 1, so every job is complete alone: the number of jobs that share a key is more"
    if rule.escalate and set(rule.escalate.notify) <= set(rule.notify):
        yield ("escalate", "notify"), "names nobody but those that notify names: they know already"


def _looks_back(rule: Rule) -> tuple[str, timedelta | None]:
    """Return for how long a rule needs jobs that have ended, and the key that says so."""
    match rule.incident:
        case Threshold(within=within):
            return "within", within
        case Absence(after=after):
            return "for", after
        case FanIn(settle=settle):
            return "settle", settle
    return "", None


def _apart(rule: Rule, other: Rule, aliases: Mapping[str, str]) -> str | None:
    """Return a field of the other rule's key of which no value is right for both rules, if there is one."""
    mine, theirs = (
        {f: _ids(found, f, aliases) for f, found in _narrowed(one.conditions).items()} for one in (rule, other)
    )
    fields = [field for field in other.by if field in mine.keys() & theirs.keys() and field not in _SEVERAL]
    return next((field for field in fields if mine[field].isdisjoint(theirs[field])), None)


def _ids(texts: Iterable[str], field: str, aliases: Mapping[str, str]) -> frozenset[str]:
    return frozenset(aliases.get(text, text) if field == "queue" else text for text in texts)


class Polled:
    """What the watches poll, and how often: so what of a rule, mute or silence can never match."""

    def __init__(self, watches: Sequence[Watch], aliases: Mapping[str, str]) -> None:
        self._aliases = aliases
        self._names = {queue: name for name, queue in aliases.items()}
        self._values = {
            field: dict.fromkeys(value for watch in watches for value in values(watch))
            for field, values in _POLLED.items()
        }
        self._queues: dict[tuple[str, str], set[str | None]] = defaultdict(set)
        self._every: dict[tuple[str, str], timedelta] = {}
        self._tried = 0
        for watch in watches:
            for stream in watch.streams:
                for key in product(("", watch.place.bucket), ("", stream.tag)):
                    self._queues[key].add(stream.queue)
            for field, value in [("", ""), *((name, value) for name, of in _POLLED.items() for value in of(watch))]:
                self._every[field, value] = min(watch.every, self._every.get((field, value), watch.every))

    def findings(self, was: States, to: States, conditions: Iterable[Condition]) -> Iterator[Finding]:
        yield from _undocumented("from", was)
        yield from _undocumented("to", to)
        if was.exact and was.exact <= DONE:
            yield ("from",), "never happens: a job that ended changes no more"
        texts = [condition for condition in conditions if isinstance(condition, TextCondition)]
        for condition in texts:
            path = ("match", *condition.field.split(".", 1))
            if _excludes_itself(condition):
                yield path, "never holds: all that it names is excluded too"
            if condition.field == "queue":
                yield from ((path, text) for text in self._of_queues(condition, _narrowed(texts)))
            elif polled := self._values.get(condition.field):
                for value in sorted((condition.exact or frozenset()).difference(polled)):
                    what = f'no watch polls the {condition.field} "{value}"'
                    if condition.field == "watch":
                        what = f'there is no watch "{value}"'
                    yield path, f"{what}{instead(value, polled)}"

    def _of_queues(self, condition: TextCondition, narrowed: Mapping[str, frozenset[str]]) -> Iterator[str]:
        listed = self._listed(narrowed)
        if not listed:  # then any queue may be polled
            yield from filter(None, (_nearly_alias(queue, self._aliases) for queue in sorted(condition.exact or ())))
            return
        exact = {self._aliases.get(text, text) for text, _ in condition.wanted if not is_glob(text)}
        globs = [(text, test) for text, test in condition.wanted if is_glob(text)]
        missing = [("the queue", name) for name in self._named(exact.difference(listed))]
        missing += [("a queue like", text) for text, test in globs if self._fits_none(test, listed)]
        known = self._named(listed) if missing else []
        for what, text in missing:
            yield f'no watch polls {what} "{text}"{instead(text, known)}'

    def _named(self, queues: Iterable[str]) -> list[str]:
        return sorted(self._names.get(queue, queue) for queue in queues)

    def _fits_none(self, test: Callable[[str], bool], queues: Collection[str]) -> bool:
        self._tried += len(queues)
        if self._tried > _MOST_TRIED:
            return False
        return not any(test(queue) or test(self._names.get(queue, queue)) for queue in queues)

    def _listed(self, narrowed: Mapping[str, frozenset[str]]) -> set[str]:
        """Return the queues that are polled for such jobs; nothing when all are, or when it would take long to say."""
        buckets, tags = narrowed.get("bucket", {""}), narrowed.get("tag", {""})
        if len(buckets) * len(tags) > _MOST_NARROWED:
            return set()
        found = {queue for key in product(buckets, tags) for queue in self._queues.get(key, ())}
        return {queue for queue in found if queue} if None not in found else set()

    def every(self, conditions: Iterable[Condition]) -> timedelta:
        """Return an interval that no watch of such jobs is below."""
        narrowed = _narrowed(conditions)
        shortest = [self._every.get(("", ""), timedelta())]
        for field in narrowed.keys() & _POLLED.keys():
            polled = [every for value in narrowed[field] if (every := self._every.get((field, value)))]
            shortest.append(min(polled, default=timedelta()))
        return max(shortest)


def _narrowed(conditions: Iterable[Condition]) -> dict[str, frozenset[str]]:
    texts = (condition for condition in conditions if isinstance(condition, TextCondition))
    return {condition.field: condition.exact for condition in texts if condition.exact}


def _undocumented(key: str, states: States) -> Iterator[Finding]:
    for word in sorted(states.words.difference(STATE_WORDS)):
        yield (key,), f'no state "{word}" is documented; there are {listing(STATE_WORDS)}'


def _excludes_itself(condition: TextCondition) -> bool:
    """Tell whether whatever is wanted is unwanted too; of globs only where that is the same text, or all texts."""
    wanted, unwanted = condition.wanted, condition.unwanted
    if not wanted or len(wanted) * len(unwanted) > _MOST_NARROWED:
        return False
    if any(text in ("*", "**") and test("a/b") for text, test in unwanted):  # in paths * stops at a slash
        return True
    texts = _texts(unwanted)
    return all(text in texts or (not is_glob(text) and any(test(text) for _, test in unwanted)) for text, _ in wanted)


def _nearly_alias(queue: str, aliases: Mapping[str, str]) -> str:
    near = "" if queue in aliases or queue in aliases.values() else suggest(queue, aliases)
    return near and f'"{queue}" is not in [alias.queue], so it is taken for the id of a queue{near}'


def _human(span: timedelta) -> str:
    return human(span.total_seconds())


# --- rules that never fire, because an earlier one matches all that they do, and stops ---


def _rules_that_never_fire(rules: Iterable[Rule]) -> Iterator[tuple[int, Rule]]:
    """Yield the place of each rule that never fires, with the first rule found above it that stops all it matches.

    What it does not find: a rule that several others stop together; one whose texts another's glob covers; one about
    another time in state; one that more than 50 might stop, by the texts that both name, when none of the first 50
    does.
    """
    stopping = _Stopping()
    for place, rule in enumerate(rules):
        above = next((stop for stop in stopping.may_stop(rule) if _covers(stop, rule)), None)
        if above:
            yield place, above
        elif rule.stop:  # what it would stop, the one above does
            stopping.add(rule)


class _Stopping:
    """The rules that stop, each by the texts of one field, of which a rule that it covers names some and no others."""

    def __init__(self) -> None:
        self._by_text: dict[_Key, list[Rule]] = defaultdict(list)

    def add(self, rule: Rule) -> None:
        keys = [[(bool(rule.level), field, text) for text in texts] for field, texts in _wanted(rule)]
        rarest = min(keys, key=lambda found: max(len(self._by_text.get(key, ())) for key in found), default=None)
        for key in rarest or [(bool(rule.level), "", "")]:
            self._by_text[key].append(rule)

    def may_stop(self, rule: Rule) -> Sequence[Rule]:
        """Return rules that were added and may cover this one; every one that does is under any of its texts."""
        kind = bool(rule.level)
        keys = [(kind, "", ""), *((kind, field, min(texts)) for field, texts in _wanted(rule))]
        return [stop for key in keys for stop in self._by_text.get(key, ())[:_MOST_COMPARED]][:_MOST_COMPARED]


def _wanted(rule: Rule) -> Iterator[tuple[str, set[str]]]:
    for condition in rule.conditions:
        if isinstance(condition, TextCondition) and condition.wanted:
            yield condition.field, _texts(condition.wanted)


def _covers(above: Rule, rule: Rule) -> bool:
    """Tell whether `above` matches whatever `rule` does."""
    return (
        _includes(above.was, rule.was)
        and _includes(above.to, rule.to)
        and _is_as_soon(above.level, rule.level)
        and all(any(_implies(theirs, ours) for theirs in rule.conditions) for ours in above.conditions)
    )


def _includes(wide: States, narrow: States) -> bool:
    return "*" in wide.words or all(
        word in wide.words if word in ("*", "active") else word in wide for word in narrow.words
    )


def _is_as_soon(above: LevelSpec | None, level: LevelSpec | None) -> bool:
    """Tell whether `above` holds at every moment of a time in state at which `level` does."""
    if above is None or level is None:
        return above is level
    # One that has held for longer may be silent: a first snapshot found it so, or the job is gone for more than a day.
    return above.after == level.after and GONE not in level.states and _includes(above.states, level.states)


def _implies(narrow: Condition, wide: Condition) -> bool:
    """Tell whether every job that the one holds for is one that the other holds for."""
    if narrow.field != wide.field:
        return False
    match narrow, wide:
        case TextCondition(), TextCondition():
            wanted = not wide.wanted or (bool(narrow.wanted) and _texts(narrow.wanted) <= _texts(wide.wanted))
            return wanted and _texts(wide.unwanted) <= _texts(narrow.unwanted)
        case TextCondition(), PresenceCondition():
            return wide.present and bool(narrow.wanted)
        case PresenceCondition(), PresenceCondition():
            return narrow.present == wide.present
        case DurationCondition(), DurationCondition() if narrow.sign[0] == wide.sign[0]:
            further = narrow.limit > wide.limit if wide.sign[0] == ">" else narrow.limit < wide.limit
            return further or (narrow.limit == wide.limit and (narrow.sign == wide.sign or wide.sign[1:] == "="))
    return False


def _texts(tests: Iterable[tuple[str, object]]) -> set[str]:
    return {text for text, _ in tests}
