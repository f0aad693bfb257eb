"""500 jobs fail at once and workers are killed: chats and mail keep their limits, and every failure is told."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from bridge.simulator.robots import CHATS, Post, Robot
from bridge.simulator.smtp import Mail, MailServer
from tests.conftest import only_postgresql
from tests.support.mail import PASSWORD, USER, a_mail_server, the_certificate
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

FAILURES, KILLS = 500, 5
IN_FLIGHT = 4  # of a robot's messages, at most: a kill repeats no more
PAGE = "https://bridge.example.com"
WATCH = """
[defaults]
every = "1s"
rate = "1000/s"

[[watch]]
name = "media"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
"""
ROBOT = '[notifier.{tool}]\ntype = "{tool}"\nurl = {{ env = "{tool}_URL" }}\n'
RULE = '[[rule]]\nname = "failed"\nto = "Failed"\nnotify = {tools}\n'
MAIL = """[notifier.email]
type = "email"
server = "{place}"
username = "{user}"
password = {{ env = "MAIL_PASSWORD" }}
from = "{user}"
to = "ops@example.com"
"""
_LINK = re.compile(r"\((https://[^)]*)\)")


def rules(server: MailServer) -> str:
    robots = (ROBOT.format(tool=tool) for tool in CHATS)
    return "".join([WATCH, *robots, MAIL.format(place=server.place, user=USER), RULE.format(tools=[*CHATS, "email"])])


@only_postgresql
def test_each_of_500_failures_is_told_once_or_with_others_within_the_limits_of_robots_and_mail(
    tmp_path: Path, db_url: str
) -> None:
    with ExitStack() as stack:
        robots = {tool: stack.enter_context(kind()) for tool, kind in CHATS.items()}
        server = stack.enter_context(a_mail_server())
        stage = stack.enter_context(Stage(tmp_path, db_url, rules=rules(server)))
        stage.environ |= {f"{tool}_URL": robot.webhook for tool, robot in robots.items()}
        stage.environ |= {"MAIL_PASSWORD": PASSWORD, "SSL_CERT_FILE": str(the_certificate().path)}
        stage.environ["BRIDGE_PUBLIC_URL"] = PAGE
        worker = stage.start_worker()
        stage.await_first_poll()
        for job in [stage.ci.create(BUCKET, "Transcode", "p1") for _ in range(FAILURES)]:
            stage.ci.move(job, "Failed")
        for kill in range(1, KILLS + 1):
            wait_until(lambda wanted=5 * kill: posted(robots) >= wanted, why=lambda: stage.log[-3000:])
            worker.kill()
            worker.wait(10)
            worker = stage.start_worker()
        wait_until(stage.is_quiet, within_s=180, why=lambda: stage.log[-3000:])
        assert stage.stop(worker) == 0
        for tool, robot in robots.items():
            assert robot.answers.keys() == {0}, f"{tool} refused messages"
            again = check_all_is_told(stage, tool, robot.posts)
            assert all("this may be a repetition" in post.plain for post in again)
        check_all_is_told(stage, "email", [_shown(mail) for mail in server.mails])
        ids = {mail.message["Message-ID"] for mail in server.mails}  # of a repetition it is the same
        assert len(ids) == sum(row["state"] == "sent" for row in stage.deliveries(notifier="email"))


def _shown(mail: Mail) -> Post:
    text = mail.message.get_body(("plain",)).get_content()
    return Post(at=0, title="", text=text, links=tuple(_LINK.findall(text)), mentions=())


def posted(robots: dict[str, Robot]) -> int:
    return sum(len(robot.posts) for robot in robots.values())


def check_all_is_told(stage: Stage, tool: str, posts: list[Post]) -> list[Post]:
    """Compare what is on record with what people are shown; return what they are shown again."""
    by_link = defaultdict[str, list[Post]](list)
    for post in posts:
        by_link[post.links[0]].append(post)
    rows = stage.deliveries(notifier=tool)
    assert {row["state"] for row in rows} == {"sent", "merged"}
    own = [f"{PAGE}/jobs/{row['job']}" for row in rows if row["state"] == "sent" and row["job"]]
    digests = [row["id"] for row in rows if row["state"] == "sent" and not row["job"]]
    members = [row for row in rows if row["state"] == "merged"]
    assert len(own) + len(members) == FAILURES
    assert {row["digest"] for row in members} == {*digests}
    assert by_link.keys() == {*own, *(f"{PAGE}/deliveries?digest={digest}" for digest in digests)}
    assert len(posts) - len(by_link) <= KILLS * IN_FLIGHT
    return [post for told in by_link.values() for post in told[1:]]
