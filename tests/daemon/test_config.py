"""Configuration: precedence, refusals that name file, key and remedy, and the annotated sample."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from channeld.daemon import config as module
from channeld.daemon.config import (
    KEYS,
    SECTIONS,
    Config,
    ConfigError,
    ConfigFileError,
    ConfigSyntaxError,
    ExposedApiError,
    HostPort,
    InvalidSettingError,
    MissingSettingError,
    UnknownSettingError,
    annotated_sample,
    description,
    environment_name,
    load,
)

PAYOUT = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # an example of EIP-55


@pytest.fixture
def write(tmp_path):
    def writer(text: str) -> Path:
        path = tmp_path / "channeld.toml"
        path.write_text(text)
        return path

    return writer


def test_defaults_without_any_source():
    config = load(environment={})
    assert config == Config()
    assert config.channel.proposal_timeout == 5
    assert config.channel.mark_interval == 60
    assert config.channel.auto_dispute == "alert"
    assert config.api_address == HostPort("127.0.0.1", 9600)
    assert config.peer_address == HostPort("127.0.0.1", 9700)


def test_flag_beats_environment_beats_file_beats_default(write):
    path = write('[chain]\nconfirmations = 3\npoll_interval = 7\n[desk]\nname = "maker"\n')
    environment = {"CHANNELD_CHAIN_CONFIRMATIONS": "4", "CHANNELD_CHAIN_POLL_INTERVAL": "8", "HOME": "/root"}
    config = load(path, flags={"chain.confirmations": 5, "desk.name": None}, environment=environment)
    assert config.chain.confirmations == 5
    assert config.chain.poll_interval == 8
    assert config.desk.name == "maker"
    assert config.chain.request_timeout == Config().chain.request_timeout
    assert load(path, environment={}).chain.confirmations == 3


def test_texts_of_environment_and_flags_become_what_the_setting_is():
    environment = {"CHANNELD_ORACLE_URLS": "http://one:1, http://two:2", "CHANNELD_GAS_BUMP_PERCENT": "70"}
    config = load(flags={"chain.urls": "http://node:8545", "gas.max_fee_gwei": "12.5"}, environment=environment)
    assert config.oracle.urls == ("http://one:1", "http://two:2")
    assert config.gas.bump_percent == 70
    assert config.chain.urls == ("http://node:8545",)
    assert config.gas.max_fee_gwei == 12.5


def test_a_directory_means_its_file_and_holds_the_data(write, tmp_path):
    write('[desk]\nname = "taker"\n')
    config = load(tmp_path, environment={})
    assert config.desk.name == "taker"
    assert config.data_path == tmp_path
    write('[desk]\ndata_dir = "state"\n')
    assert load(tmp_path, environment={}).data_path == tmp_path / "state"
    write('[desk]\ndata_dir = "/var/lib/desk"\n')
    assert load(tmp_path, environment={}).data_path == Path("/var/lib/desk")


# --- the sample ---


def test_the_sample_round_trips(write):
    config = load(write(annotated_sample()), environment={})
    assert msgspec.structs.replace(config, source=None) == Config()


def test_the_sample_of_a_configuration_round_trips(write):
    config = load(
        flags={
            "desk.name": 'a "quoted" \\ name \x7f\t é',
            "desk.payout": PAYOUT,
            "chain.kind": "embedded",
            "chain.clock": "devnet",
            "chain.confirmations": 0,
            "chain.urls": ["http://127.0.0.1:1", "https://node.example/path"],
            "oracle.urls": [],
            "gas.max_fee_gwei": 0.001,
            "channel.auto_dispute": "challenge",
            "peers.listen": "[::1]:0",
        },
        environment={},
    )
    again = load(write(annotated_sample(config)), environment={})
    assert msgspec.structs.replace(again, source=None) == config
    assert again.peer_address == HostPort("::1", 0)


def test_the_sample_has_every_setting_with_its_explanation():
    sample = annotated_sample()
    document = tomllib.loads(sample)
    assert {f"{s}.{k}" for s, content in document.items() for k in content} == set(KEYS)
    one_line = " ".join(line.removeprefix("# ") for line in sample.splitlines())
    for key in KEYS:
        assert len(description(key)) > 15, key
        assert description(key) in one_line, key
    assert all(len(line) <= 120 for line in sample.splitlines())


def test_the_documentation_has_every_setting():
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for key in KEYS:
        section, name = key.split(".")
        assert f"`{name}`" in text.partition(f"## [{section}]")[2].partition("\n## ")[0], key


# --- refusals ---


def test_no_file(tmp_path):
    with pytest.raises(ConfigFileError, match="No such file") as refused:
        load(tmp_path / "missing.toml", environment={})
    assert "channeld init" in refused.value.next_step
    with pytest.raises(ConfigFileError, match=r"channeld\.toml"):
        load(tmp_path, environment={})


@pytest.mark.parametrize("text", ["[chain\n", "name = desk\n", "[desk]\nname = 1\nname = 2\n"])
def test_no_toml(write, text):
    path = write(text)
    with pytest.raises(ConfigSyntaxError, match="line") as refused:
        load(path, environment={})
    assert str(path) in str(refused.value)


def test_no_text(tmp_path):
    path = tmp_path / "channeld.toml"
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(ConfigSyntaxError, match="UTF-8"):
        load(path, environment={})


@pytest.mark.parametrize(
    ("text", "name", "nearest"),
    [
        ("[chain]\nconfirmation = 3\n", "chain.confirmation", "chain.confirmations"),
        ("[chains]\n", "chains", "chain"),
        ("[oracle]\nmark_interval = 3\n", "oracle.mark_interval", "channel.mark_interval"),
        ("[api]\nlissten = ''\n", "api.lissten", "api.listen"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(write, text, name, nearest):
    path = write(text)
    with pytest.raises(UnknownSettingError) as refused:
        load(path, environment={})
    assert str(path) in str(refused.value)
    assert refused.value.details == {"key": name, "nearest": nearest}
    assert nearest in refused.value.next_step


def test_an_unknown_setting_that_resembles_nothing(write):
    with pytest.raises(UnknownSettingError) as refused:
        load(write("[desk]\nzzzzqqqq = 1\n"), environment={})
    assert "docs/configuration.md" in refused.value.next_step


def test_environment_variables_nearly_right_are_refused_and_others_left_alone():
    load(environment={"CHANNELD_PASSWORD": "x", "CHANNELD_API_TOKEN": "x", "CHANNELD_DATA_DIR": "x", "PATH": "x"})
    with pytest.raises(UnknownSettingError, match="CHANNELD_CHAIN_URL") as refused:
        load(environment={"CHANNELD_CHAIN_URL": "http://x"})
    assert "CHANNELD_CHAIN_URLS" in refused.value.next_step


def test_an_unknown_flag():
    with pytest.raises(UnknownSettingError, match="command line"):
        load(flags={"chain.url": "http://x"}, environment={})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[chain]\nconfirmations = '3'\n", "chain.confirmations"),
        ("[chain]\nconfirmations = -1\n", "chain.confirmations"),
        ("[chain]\nconfirmations = true\n", "chain.confirmations"),
        ("[chain]\nconfirmations = 0\n", "chain.confirmations"),
        ("[chain]\nkind = 'mainnet'\n", "chain.kind"),
        ("[chain]\nclock = 'devnet'\n", "chain.clock"),
        ("[chain]\nurls = []\n", "chain.urls"),
        ("[chain]\nurls = 'http://127.0.0.1'\n", "chain.urls"),
        ("[chain]\nurls = ['127.0.0.1:8545']\n", "chain.urls"),
        ("[chain]\nurls = ['http://']\n", "chain.urls"),
        ("[chain]\nurls = ['http://x:99999']\n", "chain.urls"),
        ("[chain]\npoll_interval = 0\n", "chain.poll_interval"),
        ("[chain]\npoll_interval = nan\n", "chain.poll_interval"),
        ("[chain]\npoll_interval = inf\n", "chain.poll_interval"),
        ("[gas]\nbump_percent = 5\n", "gas.bump_percent"),
        ("[channel]\ndispute_after = 1\n", "channel.dispute_after"),
        ("[peers]\nlisten = '9700'\n", "peers.listen"),
        ("[peers]\nlisten = '::1:9700'\n", "peers.listen"),
        ("[peers]\nlisten = 'host:70000'\n", "peers.listen"),
        ("[api]\nlisten = ''\n", "api.listen"),
        ("[desk]\nname = ''\n", "desk.name"),
        ("[desk]\npayout = '0x12'\n", "desk.payout"),
        (f"[desk]\npayout = '{PAYOUT[:-1]}D'\n", "desk.payout"),
        (f"[desk]\npayout = '{'0x' + '0' * 40}'\n", "desk.payout"),
        ("desk = 'maker'\n", "desk"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_key(write, text, key):
    path = write(text)
    with pytest.raises(InvalidSettingError) as refused:
        load(path, environment={})
    assert refused.value.details["key"] == key
    assert str(path) in str(refused.value)
    assert key in str(refused.value)
    assert refused.value.next_step


def test_a_wrong_value_names_the_variable_or_flag_it_came_from():
    with pytest.raises(InvalidSettingError, match="environment variable CHANNELD_GAS_BUMP_PERCENT"):
        load(environment={"CHANNELD_GAS_BUMP_PERCENT": "many"})
    with pytest.raises(InvalidSettingError, match=r"flag for chain\.kind"):
        load(flags={"chain.kind": "ethereum"}, environment={})


@pytest.mark.parametrize("address", ["0.0.0.0:9600", "192.168.1.2:9600", "[::]:9600", "desk.example:9600"])
def test_the_api_stays_on_this_machine(write, address):
    with pytest.raises(ExposedApiError) as refused:
        load(write(f"[api]\nlisten = '{address}'\n"), environment={})
    assert address in str(refused.value)
    assert "SSH tunnel" in refused.value.next_step


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:0", "127.8.8.8:65535"])
def test_this_machines_own_addresses_are_fine(address):
    assert load(flags={"api.listen": address}, environment={}).api_address.port in {0, 1, 65535}


def test_the_payout_address_when_it_is_needed():
    assert load(flags={"desk.payout": PAYOUT}, environment={}).payout_address == bytes.fromhex(PAYOUT[2:])
    assert load(flags={"desk.payout": PAYOUT.lower()}, environment={}).payout_address[0] == 0x5A
    with pytest.raises(MissingSettingError, match=r"desk\.payout") as refused:
        _ = Config().payout_address
    assert "cold address" in refused.value.next_step


def test_names_of_environment_variables_are_unique_and_errors_numbered():
    assert len({environment_name(key) for key in KEYS}) == len(KEYS)
    assert environment_name("chain.poll_interval") == "CHANNELD_CHAIN_POLL_INTERVAL"
    assert set(SECTIONS) == set(msgspec.structs.asdict(Config())) - {"source"}
    errors = [e for e in vars(module).values() if isinstance(e, type) and issubclass(e, ConfigError)]
    assert all(7000 <= e.code < 7100 for e in errors)
