"""One folder for one account: the same for the same, another for any other, and no secret in it."""

import dataclasses
from pathlib import Path

import pytest

from containerfs.account import account_key
from containerfs.api.connection import Connection

ACCOUNT = Connection(base_url="https://api.example.com/v1", api_key="sk-secret")


def test_the_same_account_has_the_same_folder():
    same = dataclasses.replace(ACCOUNT, base_url=ACCOUNT.base_url + "/", timeout=1.0)
    assert account_key(same) == account_key(ACCOUNT)


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "https://api.example.com/v2"},
        {"api_key": "sk-other"},
        {"api_key": None},
        {"organization": "org"},
        {"project": "org"},
        {"uds": "/socket"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_account_has_another_folder(change):
    assert account_key(dataclasses.replace(ACCOUNT, **change)) != account_key(ACCOUNT)


def test_an_embedded_server_is_its_data():
    other = Connection(base_url="http://containerfs/v1", uds="/any/socket")
    assert account_key(ACCOUNT, data=Path("/data")) == account_key(other, data=Path("/data"))
    assert account_key(other, data=Path("/data")) != account_key(other, data=Path("/other"))


@pytest.mark.parametrize("host", ["api.example.com", "[::1]", "..", "a" * 300 + ".com", "é.com"])
def test_the_name_is_one_plain_folder_that_says_the_host_and_not_the_key(host):
    name = account_key(Connection(base_url=f"https://{host}/v1", api_key="sk-secret"))
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name.encode()) < 250
    assert "secret" not in name
