import dataclasses
import json

import pytest
from chain_support import example_terms

from channeld.chain.contracts import Artifact, load_artifact, parse_artifact
from channeld.chain.deployment import (
    check_collateral,
    deploy_contract,
    parse_deployment,
    read_deployment,
    verify_deployment,
    write_deployment,
)
from channeld.chain.errors import (
    ArtifactError,
    CodeMismatchError,
    CollateralMismatchError,
    DeploymentFileError,
    NotDeployedError,
    WrongChainIdError,
)
from channeld.core.crypto import checksum_address, keccak256


async def test_deployed_verified_written_and_read(world, tmp_path):
    await verify_deployment(world.rpc, world.deployment)
    path = tmp_path / "deployment.json"
    write_deployment(path, world.deployment)
    assert read_deployment(path) == world.deployment
    assert json.loads(path.read_text())["adjudicator"] == checksum_address(world.deployment.adjudicator)
    assert world.deployment.block <= await world.rpc.block_number()
    assert await world.adjudicator.risk_engine() == world.deployment.risk_engine
    assert await world.adjudicator.fix_book() == world.deployment.fix_book
    assert await world.adjudicator.rules() == world.deployment.rules
    assert await world.token.symbol() == "TUSD"


async def test_another_chain(world):
    with pytest.raises(WrongChainIdError):
        await verify_deployment(world.rpc, dataclasses.replace(world.deployment, chain_id=1))


async def test_no_code(world):
    for name in ("adjudicator", "fix_book", "risk_engine", "rules", "lens"):
        with pytest.raises(NotDeployedError):
            await verify_deployment(world.rpc, dataclasses.replace(world.deployment, **{name: b"\x55" * 20}))


async def test_other_code_at_an_address(world):
    for name in ("adjudicator", "fix_book", "risk_engine", "rules", "lens"):
        swapped = dataclasses.replace(world.deployment, **{name: world.token.address})
        with pytest.raises(CodeMismatchError):
            await verify_deployment(world.rpc, swapped)
    with pytest.raises(CodeMismatchError, match="hash"):
        await verify_deployment(world.rpc, dataclasses.replace(world.deployment, fix_book_hash=bytes(32)))


async def test_an_adjudicator_that_asks_other_contracts(world):
    """Our own code, its immutables an attacker's: the runtime's prefix agrees, the deployment does not."""
    deployer = world.managers["deployer"]
    ours = (world.deployment.risk_engine, world.deployment.fix_book, world.deployment.rules)
    for others in (
        (ours[0], b"\x66" * 20, ours[2]),
        (ours[1], ours[0], ours[2]),
        (ours[0], ours[1], b"\x66" * 20),
    ):
        forged = await deploy_contract(deployer, "Adjudicator", *others)
        code_hash = keccak256(await world.rpc.code(forged))
        with pytest.raises(CodeMismatchError, match="other addresses"):
            await verify_deployment(
                world.rpc, dataclasses.replace(world.deployment, adjudicator=forged, adjudicator_hash=code_hash)
            )


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda d: d | {"chain_id": "31337"},
        lambda d: d | {"chain_id": -1},
        lambda d: d | {"adjudicator": "0x12"},
        lambda d: d | {"fix_book": "zz" * 20},
        lambda d: d | {"risk_engine": None},
        lambda d: d | {"code_hashes": []},
        lambda d: {k: v for k, v in d.items() if k != "block"},
    ],
)
async def test_malformed_deployments(world, change):
    with pytest.raises(DeploymentFileError):
        parse_deployment(change(world.deployment.as_data()))


async def test_files_that_are_none(world, tmp_path):
    with pytest.raises(DeploymentFileError):
        read_deployment(tmp_path / "none.json")
    with pytest.raises(DeploymentFileError):
        read_deployment(tmp_path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DeploymentFileError):
        read_deployment(tmp_path / "x.json")
    with pytest.raises(DeploymentFileError):
        write_deployment(tmp_path / "none" / "deployment.json", world.deployment)


async def test_collateral(world):
    terms = example_terms(collateral=world.token.address)
    await check_collateral(world.rpc, terms)
    with pytest.raises(CollateralMismatchError, match="decimals"):
        await check_collateral(world.rpc, dataclasses.replace(terms, decimals=18))
    with pytest.raises(NotDeployedError):
        await check_collateral(world.rpc, dataclasses.replace(terms, collateral=b"\x77" * 20))
    with pytest.raises(CollateralMismatchError, match="no token"):
        await check_collateral(world.rpc, dataclasses.replace(terms, collateral=world.deployment.risk_engine))


def test_artifacts():
    for name in ("Adjudicator", "FixBook", "RiskEngine", "Rules", "Lens", "TestToken"):
        artifact = load_artifact(name)
        assert isinstance(artifact, Artifact)
        assert artifact.runtime in artifact.bytecode
    with pytest.raises(ArtifactError):
        load_artifact("Nothing")
    for text in ("{", "[]", '{"abi": [], "bytecode": "0xzz", "runtime": "0x"}'):
        with pytest.raises(ArtifactError):
            parse_artifact("Broken", text)
    with pytest.raises(ArtifactError):
        load_artifact("Adjudicator").deployed_code({})
