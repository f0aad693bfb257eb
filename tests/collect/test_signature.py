import json
from typing import Any

import pytest

from bridge.collect.signature import authorization
from tests.collect.conftest import FIXTURES

HOST = {"host": "examplebucket-1250000000.ci.ap-chongqing.myqcloud.com"}
VECTORS = json.loads((FIXTURES / "sign_vectors.json").read_text())


def sign(**asked: Any) -> str:
    keys = {"secret_id": "AKIDtestvector", "secret_key": "testvectorsecret", "method": "GET"}
    return authorization(**keys, **asked, start=1656314532, end=1656324592)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_official_sdk_signs_the_same(vector: dict[str, Any]) -> None:
    params = {name: vector["params"][name] for name in vector["signed_params"]}
    signed = sign(path=vector["path"], params=params, headers=vector["signed_headers"])
    assert signed == vector["authorization"]


def test_chinese_quotes_and_brackets_are_encoded_as_the_official_sdk_does() -> None:
    params = {"tag": "Snapshot", "size": "10", "inputObject": "dir 1/视频(a)*b'~+c&d=e.mp4"}
    signed = sign(path="/jobs", params=params, headers=HOST)
    assert signed.endswith("q-url-param-list=inputobject;size;tag&q-signature=8fbde80dad29c3eb23fcb10c5ecb1b5032fa73f5")


def test_params_that_are_not_signed_are_not_listed() -> None:
    signed = sign(path="/queue", params={}, headers=HOST)
    assert signed.endswith("q-url-param-list=&q-signature=28150677cb84696891e707d116fad6302e36b110")


def test_the_upload_that_the_cos_document_prints_is_signed_as_printed() -> None:
    """https://cloud.tencent.com/document/product/436/7778, read 2026-11-21."""
    headers = {
        "Content-Type": "text/plain",
        "Content-Length": "13",
        "Content-MD5": "mQ/fVh815F3k6TAUm8m0eg==",
        "Date": "Thu, 16 May 2019 06:45:51 GMT",
        "Host": "examplebucket-1250000000.cos.ap-beijing.myqcloud.com",
        "x-cos-acl": "private",
        "x-cos-grant-read": 'uin="100000000011"',
    }
    signed = authorization(
        secret_id="AKIDQjz3ltompVjBni5LitkWHFlFpwkn9U5q",
        secret_key="BQYIM75p8x0iWVFSIgqEKwFprpRSVHlz",
        method="PUT",
        path="/exampleobject(腾讯云)",
        params={},
        headers=headers,
        start=1557989151,
        end=1557996351,
    )
    assert signed.endswith("q-signature=3b8851a11a569213c17ba8fa7dcf2abec6935172")
