"""Break each guarantee on purpose, in a copy, and see that a test notices: python -m tests.mutants

The exit status is 1 when one of them is not noticed, or no longer fits the code. Words behind the command choose those
whose names have one of them: python -m tests.mutants digest silence
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_COPIED = ("bridge", "tests", "benchmarks", "pyproject.toml", "rules.toml")
_AT_ONCE = 2
_PYTEST = ("-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:schemathesis", "-p", "no:anyio")  # both are slow to load


@dataclass(frozen=True, slots=True)
class Mutant:
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # at least one of these must fail


_SAVE = (
    "            streams = {s.key for watch in context.book.watches for s in watch.streams}\n"
    "            snapshots.save(tx, jobs, steps, before, stream=stream.key, streams=streams, now=now)\n"
)
MUTANTS = (
    Mutant(
        "judging by rules that are not in force",
        "bridge/pipeline/poll.py",
        "            rulesets.require_in_force(tx, book.sha)\n            yield tx\n",
        "            yield tx\n",
        ("tests/pipeline/test_poll.py",),
    ),
    Mutant(
        "taking a rules file that is being written",
        "bridge/wiring/rules.py",
        "(found == self._text or self._same_s >= SETTLED_S) and ",
        "",
        ("tests/decide/test_reload.py",),
    ),
    Mutant(
        "old rules that do not give way",
        "bridge/decide/rulesfile/reload.py",
        "return mine > in_force or ",
        "return ",
        ("tests/decide/test_precedence.py",),
    ),
    Mutant(
        "finishing without the fence",
        "bridge/record/outbox/results.py",
        '_MINE = (state_is(SENDING), D.c.lease == bindparam("b_lease"))',
        '_MINE = ((D.c.lease == bindparam("b_lease")) | (D.c.n > 0),)',
        ("tests/record/test_settling.py",),
    ),
    Mutant(
        "committing the snapshot before the deliveries",
        "bridge/pipeline/poll.py",
        "            context.poll.count(route_all(tx, context.book, context.dated(steps), now))\n" + _SAVE,
        _SAVE + '            tx.exec_driver_sql("COMMIT")\n            tx.exec_driver_sql("BEGIN")\n'
        "            context.poll.count(route_all(tx, context.book, context.dated(steps), now))\n",
        ("tests/pipeline/test_poll.py",),
    ),
    Mutant(
        "reusing a lease",
        "bridge/pipeline/dispatch.py",
        'lease = f"{self._worker}.{number}"',
        'lease = f"{self._worker}.0"',
        ("tests/pipeline/test_deliver.py",),
    ),
    Mutant(
        "judging the name instead of the address connected to",
        "bridge/send/client.py",
        "address = str(target.addr[0])",
        'address = whereabouts(self._url).rpartition(":")[0]\n'
        '        address = "127.0.0.1" if address == "localhost" else address\n'
        '        address = address if address[:1].isdigit() else "1.1.1.1"',
        ("tests/send/test_client_spellings.py", "tests/send/test_client_names.py"),
    ),
    Mutant(
        "taking any 2xx of a Slack webhook for its ok",
        "bridge/send/slack/answer.py",
        'return text.lower() == "ok"',
        "return not error_in(read(reply.body))",
        ("tests/send/test_slack.py",),
    ),
    Mutant(
        "keeping the deleted root of a Slack thread",
        "bridge/send/slack/request.py",
        "moved = self._receipt(posted) or moved",
        "moved = moved or None",
        ("tests/send/test_slack_threads.py",),
    ),
    Mutant(
        "letting slack-sdk know where Slack is",
        "bridge/send/slack/client.py",
        "super().__init__(base_url=_NOWHERE, retry_handlers",
        "super().__init__(token=token, base_url=base_url, retry_handlers",
        ("tests/send/test_slack_sdk.py",),
    ),
    Mutant(
        "trusting the environment's proxy",
        "bridge/send/client.py",
        '            pycurl.PROXY: policy.proxy or "",',
        "            **({pycurl.PROXY: policy.proxy} if policy.proxy else {}),",
        ("tests/send/test_client_proxies.py",),
    ),
    Mutant(
        "accepting a truncated page",
        "bridge/collect/jobs_xml.py",
        "self._parse(self._left, last=True)",
        "self._parse(self._left)",
        ("tests/collect",),
    ),
    Mutant(
        "telling a digest and letting its members wait on",
        "bridge/record/outbox/digests.py",
        "count = tx.execute(update(D).where(*_members(n)).values(**told)).rowcount",
        "count = 1",
        ("tests/pipeline/test_digests.py",),
    ),
    Mutant(
        "ending a digest in another transaction than its message",
        "bridge/pipeline/digests.py",
        "digests.end(tx, n, now=now)",
        '(digests.end(tx, n, now=now), tx.exec_driver_sql("COMMIT"), tx.exec_driver_sql("BEGIN"))[0]',
        ("tests/crash/test_halves.py",),
    ),
    Mutant(
        "a level rule that forgets that it fired",
        "bridge/decide/rules/levels.py",
        "staying.told.get(rule.name",
        'staying.told.get(""',
        ("tests/crash/test_halves.py",),
    ),
    Mutant(
        "a stay that is remembered in another transaction than it is told in",
        "bridge/pipeline/route.py",
        "    _put(tx, routings, now)\n    return routings\n\n\ndef _alarms",
        '    tx.exec_driver_sql("COMMIT")\n    tx.exec_driver_sql("BEGIN")\n'
        "    _put(tx, routings, now)\n    return routings\n\n\ndef _alarms",
        ("tests/crash/test_halves.py",),
    ),
    Mutant(
        "a silence that is ignored",
        "bridge/decide/rules/gates.py",
        "        for silence, scope in self._silent:\n",
        "        for silence, scope in ():\n",
        ("tests/pipeline/test_digests.py",),
    ),
    Mutant(
        "what is over a throttle is dropped",
        "bridge/record/outbox/entries.py",
        "_in_digest(n, gate, name, now) for place in found[passed:]",
        "_in_digest(n, gate, name, now, drop=True) for place in found[passed:]",
        ("tests/pipeline/test_digests.py",),
    ),
    Mutant(
        "a mark that is CI's clock, whatever ours says",
        "bridge/decide/changes/clocks.py",
        "return min(self.began, self.date or self.began)",
        "return self.date or self.began",
        ("tests/pipeline/test_clocks_of_lists.py",),
    ),
    Mutant(
        "a job that is gone at the first denial",
        "bridge/decide/changes/diff.py",
        "return missing.times >= _DENIALS and missing.last_at - missing.first_at >= _INTERVALS * every",
        "return True",
        ("tests/pipeline/test_missing.py",),
    ),
    Mutant(
        "a batch that is not due yet in everybody's way",
        "bridge/record/outbox/claims.py",
        "and_(other.c.n < D.c.n, ~_is_scheduled(other))",
        "other.c.n < D.c.n",
        ("tests/record/test_batches.py",),
    ),
    Mutant(
        "a batch before all that is new",
        "bridge/record/outbox/claims.py",
        '("new", "") if _batch_is_late(tx, lane, now) else ',
        "",
        ("tests/record/test_batches.py",),
    ),
    Mutant(
        "resending what somebody else has resent",
        "bridge/record/outbox/batches.py",
        ", or_(state_is(DEAD), state_is(DROPPED)))",
        ")",
        ("tests/record/test_batches.py",),
    ),
    Mutant(
        "a last try that waits for the breaker's next probe",
        "bridge/pipeline/housekeeping.py",
        "                claims.urge(tx, name, short, now=now)\n",
        "                pass\n",
        ("tests/pipeline/test_retry_time.py",),
    ),
    Mutant(
        "a notifier that answers with errors and is said to be well",
        "bridge/pipeline/health.py",
        "    elif trouble.failed:\n",
        "    elif False:\n",
        ("tests/admin/test_warnings.py",),
    ),
    Mutant(
        "a retry time that counts while the bridge stands still",
        "bridge/record/clocks.py",
        "        return min(round(ran_s * 1000), _LONGEST_STEP_MS)\n",
        "        return 10**12\n",
        ("tests/pipeline/test_retry_time.py",),
    ),
    Mutant(
        "a broken page that is refused whole",
        "bridge/pipeline/poll.py",
        "            page = Page(jobs=(), problems=self._narrow(listing, error))\n",
        "            raise\n",
        ("tests/pipeline/test_broken_pages.py",),
    ),
    Mutant(
        "an emptied rules.toml that is taken",
        "bridge/decide/rulesfile/reload.py",
        'return " and ".join(gone) or None',
        "return None",
        ("tests/decide/test_reload.py", "tests/test_rules_in_force.py"),
    ),
    Mutant(
        "rules that judge though others are in force",
        "bridge/record/rulesets.py",
        "if found not in (None, sha):",
        'if found == "":',
        ("tests/record/test_rulesets.py", "tests/test_rules_in_force.py"),
    ),
)


def main() -> int:
    mutants = [one for one in MUTANTS if not sys.argv[1:] or any(word in one.what for word in sys.argv[1:])]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        noticed = sum(threads.map(_noticed, mutants))
    print(f"{noticed} of {len(mutants)} were noticed")
    return 0 if noticed == len(mutants) else 1


def _noticed(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory(prefix="ci-bridge-mutant-") as name:
        copy = Path(name)
        for part in _COPIED:
            _copy(_ROOT / part, copy / part)
        code = (copy / mutant.file).read_text()
        if code.count(mutant.old) != 1:
            print(f"NOT APPLIED  {mutant.what}: {mutant.file} has its place {code.count(mutant.old)} times", flush=True)
            return False
        (copy / mutant.file).write_text(code.replace(mutant.old, mutant.new))
        done = subprocess.run(
            [sys.executable, *_PYTEST, *mutant.tests], cwd=copy, capture_output=True, text=True, check=False
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    # 1: tests failed. Anything else, a file that does not import say, proves nothing.
    noticed = done.returncode == 1 and bool(failed)
    by = failed[0].removeprefix("FAILED ").partition(" - ")[0] if failed else done.stdout[-300:]
    print(f"{'noticed' if noticed else 'SURVIVED':<12} {mutant.what}: {by}", flush=True)
    return noticed


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        # What is compiled of it comes along, but not what another process is writing just now; what is changed is
        # compiled again.
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main())
