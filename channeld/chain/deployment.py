"""Deployments: putting the contracts on a chain, recording where, and checking that what stands there is ours.

Rules: an address is trusted only after `verify_deployment`: the chain's id, the runtime code of every contract byte for
byte, and its immutables word for word (Vyper appends them to the code: the other contracts, the domain separator). The
file is JSON for people and programs; addresses in it carry their EIP-55 checksum.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.chain.abi import encode
from channeld.chain.contracts import Adjudicator, Token, load_artifact
from channeld.chain.errors import (
    CodeMismatchError,
    CollateralMismatchError,
    DeploymentFileError,
    MalformedResponseError,
    NotDeployedError,
    RevertError,
    WrongChainIdError,
)
from channeld.core.crypto import checksum_address, keccak256
from channeld.core.eip712 import Domain, domain_separator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from channeld.chain.rpc import ChainRpc
    from channeld.chain.transactions import TransactionManager
    from channeld.core.terms import Terms

# field of the deployment -> contract; each after those it asks
_CONTRACTS = {
    "risk_engine": "RiskEngine",
    "fix_book": "FixBook",
    "rules": "Rules",
    "adjudicator": "Adjudicator",
    "lens": "Lens",
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contracts stand. `block` is one at or before the first event; hashes are of the code on chain."""

    chain_id: int
    adjudicator: bytes
    fix_book: bytes
    risk_engine: bytes
    rules: bytes
    lens: bytes
    adjudicator_hash: bytes
    fix_book_hash: bytes
    risk_engine_hash: bytes
    rules_hash: bytes
    lens_hash: bytes
    block: int

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of its channels."""
        return Domain(self.chain_id, self.adjudicator)

    def as_data(self) -> dict[str, Any]:
        """What deployment.json holds."""
        return {
            "chain_id": self.chain_id,
            **{name: checksum_address(getattr(self, name)) for name in _CONTRACTS},
            "code_hashes": {name: "0x" + getattr(self, f"{name}_hash").hex() for name in _CONTRACTS},
            "block": self.block,
        }


def parse_deployment(document: object) -> Deployment:
    """A deployment from deployment.json's content.

    Raises:
        DeploymentFileError: malformed, naming the field.

    """

    def pick(data: object, name: str, size: int | None) -> Any:  # noqa: ANN401 - an integer or bytes
        value = data.get(name) if isinstance(data, dict) else None
        if size is None:
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
            raise DeploymentFileError(f"the deployment's {name} is not a non-negative integer")
        try:
            raw = bytes.fromhex(str(value).removeprefix("0x"))
        except ValueError:
            raw = b""
        if len(raw) != size:
            raise DeploymentFileError(f"the deployment's {name} is not {size} bytes in hexadecimal")
        return raw

    hashes = document.get("code_hashes") if isinstance(document, dict) else None
    return Deployment(
        chain_id=pick(document, "chain_id", None),
        **{name: pick(document, name, 20) for name in _CONTRACTS},
        **{f"{name}_hash": pick(hashes, name, 32) for name in _CONTRACTS},
        block=pick(document, "block", None),
    )


def read_deployment(path: Path) -> Deployment:
    """The deployment in a file.

    Raises:
        DeploymentFileError: missing, unreadable or malformed.

    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"there is no deployment at {path}"
        raise DeploymentFileError(message) from error
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise DeploymentFileError(message) from error
    except ValueError as error:
        message = f"{path} is not JSON"
        raise DeploymentFileError(message) from error
    return parse_deployment(document)


def write_deployment(path: Path, deployment: Deployment) -> None:
    """Write a deployment's file, whole or not at all.

    Raises:
        DeploymentFileError: it cannot be written.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(deployment.as_data(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        message = f"cannot write {path}: {error.strerror}"
        raise DeploymentFileError(message) from error


async def deploy(manager: TransactionManager) -> Deployment:
    """Deploy RiskEngine, FixBook, Rules, Adjudicator and Lens from the manager's key, and verify them.

    Raises:
        WrongChainIdError: the manager signs for another chain.
        InsufficientFundsError, and whatever `TransactionManager.deploy` raises.

    """
    await manager.rpc.require_chain_id(manager.chain_id)
    block = await manager.rpc.block_number()
    where = {
        "risk_engine": await deploy_contract(manager, "RiskEngine"),
        "fix_book": await deploy_contract(manager, "FixBook"),
        "rules": await deploy_contract(manager, "Rules"),
    }
    where["adjudicator"] = await deploy_contract(manager, "Adjudicator", *where.values())
    where["lens"] = await deploy_contract(manager, "Lens", where["adjudicator"])
    hashes = {f"{name}_hash": keccak256(await manager.rpc.code(address)) for name, address in where.items()}
    deployment = Deployment(chain_id=manager.chain_id, block=block, **where, **hashes)
    await verify_deployment(manager.rpc, deployment)
    return deployment


async def deploy_contract(manager: TransactionManager, name: str, *arguments: Any) -> bytes:  # noqa: ANN401 - the ABI's
    """Deploy one contract of this release; returns its address."""
    artifact = load_artifact(name)
    receipt = await manager.deploy(artifact.bytecode + encode(artifact.abi.constructor, arguments), name)
    if receipt.contract is None:
        message = f"the receipt of {name}'s deployment names no contract"
        raise MalformedResponseError(message)
    return receipt.contract


async def deploy_test_token(
    manager: TransactionManager, name: str = "Test Dollar", symbol: str = "TUSD", decimals: int = 6
) -> bytes:
    """Deploy a token that anybody may mint, for devnets and tests; returns its address."""
    return await deploy_contract(manager, "TestToken", name, symbol, decimals)


async def verify_deployment(rpc: ChainRpc, deployment: Deployment) -> None:
    """Check that a deployment is of this chain and of this release's code.

    Raises:
        WrongChainIdError: the chain is another.
        NotDeployedError: an address holds no code.
        CodeMismatchError: the code, or an immutable in it, is not ours.

    """
    found = await rpc.chain_id()
    if found != deployment.chain_id:
        message = f"the deployment is of chain {deployment.chain_id}, but {rpc.url} serves chain {found}"
        raise WrongChainIdError(message, found=found, expected=deployment.chain_id)
    immutables = _immutables(deployment.domain, {name: getattr(deployment, name) for name in _CONTRACTS})
    for field, name in _CONTRACTS.items():
        address, code_hash = getattr(deployment, field), getattr(deployment, f"{field}_hash")
        code = await _verify_code(rpc, name, address, immutables, found)
        if keccak256(code) != code_hash:
            where = checksum_address(address)
            message = f"the hash of the {name}'s code at {where} is not the one recorded"
            raise CodeMismatchError(message, contract=name, address=where)
    adjudicator = Adjudicator(rpc, deployment.adjudicator)
    asks = (await adjudicator.risk_engine(), await adjudicator.fix_book(), await adjudicator.rules())
    if asks != (deployment.risk_engine, deployment.fix_book, deployment.rules):
        message = f"the Adjudicator at {checksum_address(deployment.adjudicator)} asks other contracts than recorded"
        raise CodeMismatchError(message, contract="Adjudicator")


def _immutables(domain: Domain, addresses: Mapping[str, bytes]) -> dict[str, bytes]:
    given = {name.upper(): address for name, address in addresses.items()}
    return {**given, "DOMAIN_SEPARATOR": domain_separator(domain)}


async def _verify_code(
    rpc: ChainRpc, name: str, address: bytes, immutables: Mapping[str, bytes], chain_id: int
) -> bytes:
    """The code at an address, which must be that of this release's contract with these immutables."""
    code = await rpc.code(address)
    where = checksum_address(address)
    if not code:
        message = f"there is no {name} at {where} on chain {chain_id}"
        raise NotDeployedError(message, contract=name, address=where)
    artifact = load_artifact(name)
    if code[: len(artifact.runtime)] != artifact.runtime:
        message = f"the code at {where} is not this release's {name}"
        raise CodeMismatchError(message, contract=name, address=where)
    if code != artifact.deployed_code(immutables):
        message = f"the {name} at {where} was deployed with other addresses, or for another chain"
        raise CodeMismatchError(message, contract=name, address=where)
    return code


async def verify_adjudicator(rpc: ChainRpc, domain: Domain) -> dict[str, bytes]:
    """Check an Adjudicator by its domain alone, and the contracts that it asks; their addresses by name.

    Raises:
        WrongChainIdError, NotDeployedError, CodeMismatchError: as `verify_deployment`.

    """
    await rpc.require_chain_id(domain.chain_id)
    where = checksum_address(domain.adjudicator)
    if not await rpc.code(domain.adjudicator):
        message = f"there is no Adjudicator at {where} on chain {domain.chain_id}"
        raise NotDeployedError(message, contract="Adjudicator", address=where)
    adjudicator = Adjudicator(rpc, domain.adjudicator)
    try:
        asks = (await adjudicator.risk_engine(), await adjudicator.fix_book(), await adjudicator.rules())
    except (RevertError, MalformedResponseError) as error:
        message = f"the code at {where} is not this release's Adjudicator"
        raise CodeMismatchError(message, contract="Adjudicator", address=where) from error
    addresses = dict(zip(("risk_engine", "fix_book", "rules"), asks, strict=True))
    immutables = _immutables(domain, {**addresses, "adjudicator": domain.adjudicator})
    for field in ("adjudicator", *addresses):
        address = domain.adjudicator if field == "adjudicator" else addresses[field]
        await _verify_code(rpc, _CONTRACTS[field], address, immutables, domain.chain_id)
    return addresses


async def check_collateral(rpc: ChainRpc, terms: Terms) -> None:
    """Check that the collateral is a token with the decimals of the terms.

    Raises:
        NotDeployedError: there is no code at its address.
        CollateralMismatchError: it is no ERC-20, or has other decimals.

    """
    where = checksum_address(terms.collateral)
    if not await rpc.code(terms.collateral):
        message = f"the collateral {where} has no code"
        raise NotDeployedError(message, address=where)
    try:
        decimals = await Token(rpc, terms.collateral).decimals()
    except (RevertError, MalformedResponseError) as error:
        message = f"the collateral {where} is no token: it does not say its decimals"
        raise CollateralMismatchError(message, address=where) from error
    if decimals != terms.decimals:
        message = f"the collateral {where} has {decimals} decimals, the terms say {terms.decimals}"
        raise CollateralMismatchError(message, address=where, found=decimals, expected=terms.decimals)
