"""The task of the Celery peer: sign a body and POST it."""

from __future__ import annotations

import hashlib
import hmac
import os
import time

import requests
from celery import Celery

app = Celery("peer", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,  # or a task is lost with its worker: what the bridge promises, it has to promise too
    broker_connection_retry_on_startup=True,
)


@app.task(name="deliver")
def deliver(url: str, number: str, body: str) -> None:
    stamp, payload = str(int(time.time())), body.encode()
    mac = hmac.new(b"bench", f"{number}.{stamp}.".encode() + payload, hashlib.sha256)
    headers = {
        "content-type": "application/json",
        "webhook-id": number,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{mac.hexdigest()}",
    }
    requests.post(url, data=payload, headers=headers, timeout=15).raise_for_status()
