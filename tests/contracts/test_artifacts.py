"""The committed artifacts: those of the sources, machine independent, and how to tell deployed code."""

import json

import pytest
from contracts_harness import World, artifact, compiler, hexadecimal
from eth_abi import encode


@pytest.mark.parametrize("path", sorted(compiler().SOURCES))
def test_artifacts_are_those_of_the_sources(path):
    built = compiler().compile_source(path, compiler().SOURCES[path])
    committed = (compiler().ARTIFACTS / f"{built['name']}.json").read_text()
    assert compiler().encoded(built) == committed, "run contracts/compile.py"
    assert json.loads(committed)["compiler"] == "vyper 0.4.3"
    assert str(compiler().CONTRACTS.parent) not in committed


def test_the_code_of_a_deployed_contract_is_runtime_and_immutables():
    world = World.make()
    values = {
        "RISK_ENGINE": encode(["address"], [world.engine.address]),
        "FIX_BOOK": encode(["address"], [world.book.address]),
        "RULES": encode(["address"], [world.rules.address]),
        "ADJUDICATOR": encode(["address"], [world.adjudicator.address]),
        "DOMAIN_SEPARATOR": world.adjudicator.DOMAIN_SEPARATOR(),
    }
    contracts = {"Adjudicator": world.adjudicator, "FixBook": world.book, "RiskEngine": world.engine}
    for name, contract in (contracts | {"Rules": world.rules, "Lens": world.lens}).items():
        built = artifact(name)
        code = bytes.fromhex(built["runtime"][2:])
        assert len(code) == built["runtime_length"]
        for immutable in built["immutables"]:
            assert immutable["offset"] == len(code)
            code += values[immutable["name"]]
        # revm pads the code it analyses with zeros
        deployed = bytes(world.chain.evm.get_code(hexadecimal(contract.address)))
        assert deployed[: len(code)] == code
        assert not deployed[len(code) :].strip(b"\0")


def test_errors_are_in_the_abi():
    for name in ("Adjudicator", "FixBook"):
        errors = {e["name"] for e in artifact(name)["abi"] if e["type"] == "error"}
        assert {"Adjudicator": "PotShort", "FixBook": "OtherTime"}[name] in errors
        assert len(errors) > 10
