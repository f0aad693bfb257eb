"""Clients that are generated from the description of the API compile, and read what the API answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.wiring.web import served
from tests.admin.description import COPY
from tests.support.admin_world import READ, World, a_failed_job, job_number

MODULES = Path(os.environ.get("TEST_NODE_MODULES", "/nowhere"))
NO_PYTHON = shutil.which("openapi-python-client", path=str(Path(sys.executable).parent)) is None
NO_NODE = not (MODULES / ".bin" / "openapi-typescript").exists()

PYTHON = """
import sys
from client import AuthenticatedClient
from client.api.jobs import read_jobs
from client.models import Jobs, Problem

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
found = read_jobs.sync(client=client, state="Failed")
assert isinstance(found, Jobs)
problem = read_jobs.sync(client=client, cursor="0x")
assert isinstance(problem, Problem)
print(found.items[0].id, found.items[0].created_at.year, problem.errors[0].parameter)
"""
TYPESCRIPT = """
import type { paths, webhooks } from "./api";

type Answers = paths["/api/v1/jobs"]["get"]["responses"];
type Jobs = Answers[200]["content"]["application/json"];
type Problem = Answers[400]["content"]["application/problem+json"];
type Event = webhooks["JobEvent"]["post"]["requestBody"]["content"]["application/json"];

export const codeOf = (event: Event): string | null => event.data.job.code;

async function ask<T>(query: string): Promise<T> {
  const [url, token] = process.argv.slice(2);
  const answer = await fetch(`${url}/api/v1/jobs?${query}`, { headers: { Authorization: `Bearer ${token}` } });
  return (await answer.json()) as T;
}

async function main() {
  const [job] = (await ask<Jobs>("state=Failed")).items;
  const [fault] = (await ask<Problem>("cursor=0x")).errors ?? [];
  console.log(job?.id, job && new Date(job.created_at).getUTCFullYear(), fault?.parameter);
}

declare const process: { argv: string[] };
main();
"""
SAID = "j2 2026 cursor"


@pytest.fixture
def address(world: World) -> Iterator[str]:
    world.sees(job_number(1), a_failed_job(2))
    with served(world.app(), host="127.0.0.1", port=0) as port:
        yield f"http://127.0.0.1:{port}"


def run(*command: object, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{MODULES / '.bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": path, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(NO_PYTHON, reason="openapi-python-client is missing: install the dependency group clients")
def test_a_generated_client_for_python_compiles_and_reads_answers(address: str, tmp_path: Path) -> None:
    run(
        "openapi-python-client",
        "generate",
        "--path",
        COPY,
        "--output-path",
        "client",
        "--meta",
        "none",
        folder=tmp_path,
    )
    run(sys.executable, "-m", "compileall", "-q", "client", folder=tmp_path)
    (tmp_path / "use.py").write_text(PYTHON)
    assert run(sys.executable, "use.py", address, READ, folder=tmp_path) == SAID


@pytest.mark.skipif(NO_NODE, reason="openapi-typescript is missing: TEST_NODE_MODULES names a node_modules with it")
def test_generated_types_for_typescript_compile_and_fit_answers(address: str, tmp_path: Path) -> None:
    run("openapi-typescript", COPY, "-o", "api.ts", folder=tmp_path)
    (tmp_path / "use.ts").write_text(TYPESCRIPT)
    run(
        "tsc",
        "--strict",
        "--module",
        "commonjs",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom",
        "use.ts",
        folder=tmp_path,
    )
    assert run("node", "use.js", address, READ, folder=tmp_path) == SAID


@pytest.mark.skipif(not (MODULES / ".bin" / "redocly").exists(), reason="redocly is missing, as above")
def test_a_linter_finds_no_error(tmp_path: Path) -> None:
    run("redocly", "lint", COPY, "--skip-rule", "tag-description", folder=tmp_path)
