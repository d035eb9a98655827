import json
import stat

import pytest

from channeld.chain.keystore import (
    BadKeyError,
    KeystoreCorruptError,
    KeystoreExistsError,
    KeystoreMissingError,
    KeystoreUnreadableError,
    WrongPasswordError,
    create_keystore,
    keystore_address,
    load_keystore,
)
from channeld.core.crypto import address_of

KEY = bytes(range(1, 33))
PASSWORD = "correct horse"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "keystore.json"
    create_keystore(file, PASSWORD, KEY, iterations=2)
    return file


def test_round_trip(path):
    assert load_keystore(path, PASSWORD) == KEY
    assert keystore_address(path) == address_of(KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY.hex() not in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["keystore.json"]


def test_a_new_key_is_random(tmp_path):
    addresses = {create_keystore(tmp_path / name, PASSWORD, iterations=2) for name in ("maker", "taker")}
    assert len(addresses) == 2
    assert keystore_address(tmp_path / "maker") in addresses


def test_wrong_password(path):
    before = path.read_bytes()
    with pytest.raises(WrongPasswordError):
        load_keystore(path, "wrong")
    assert path.read_bytes() == before


def test_missing(tmp_path):
    with pytest.raises(KeystoreMissingError):
        load_keystore(tmp_path / "none.json", PASSWORD)


def test_never_overwritten(path):
    before = path.read_bytes()
    with pytest.raises(KeystoreExistsError):
        create_keystore(path, PASSWORD, KEY, iterations=2)
    assert path.read_bytes() == before


def test_a_directory_is_no_keystore(tmp_path):
    with pytest.raises(KeystoreUnreadableError):
        load_keystore(tmp_path, PASSWORD)


def test_no_directory_to_write_to(tmp_path):
    with pytest.raises(KeystoreUnreadableError):
        create_keystore(tmp_path / "none" / "keystore.json", PASSWORD, KEY, iterations=2)


@pytest.mark.parametrize("key", [b"", b"\0" * 32, b"\xff" * 32, b"\1" * 31])
def test_what_is_no_key(tmp_path, key):
    with pytest.raises(BadKeyError) as caught:
        create_keystore(tmp_path / "k.json", PASSWORD, key, iterations=2)
    assert not key or key.hex() not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_empty_password(tmp_path):
    with pytest.raises(BadKeyError):
        create_keystore(tmp_path / "k.json", "", KEY, iterations=2)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "not json",
        lambda _: "[]",
        lambda _: "{}",
        lambda d: json.dumps(d | {"version": 2}),
        lambda d: json.dumps(d | {"crypto": 5}),
        lambda d: json.dumps(d | {"crypto": {}}),
        lambda d: json.dumps(d | {"crypto": d["crypto"] | {"cipher": "rot13"}}),
        lambda d: json.dumps(d | {"crypto": d["crypto"] | {"kdfparams": {}}}),
        lambda d: json.dumps(d | {"address": "00" * 20}),
        lambda d: json.dumps({k: v for k, v in d.items() if k != "address"}),
    ],
)
def test_corrupt_files(path, change):
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(KeystoreCorruptError):
        load_keystore(path, PASSWORD)
