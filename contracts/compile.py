# noqa: INP001 - a script beside the Vyper sources, in no package
"""Compiles the contracts to the artifacts that channeld ships: `compile.py` writes them, `compile.py --check` compares.

Rules: nothing of the machine enters an artifact (sources are named relative to contracts/, the compiler and its
settings are fixed here), so that the same sources give the same bytes everywhere. A contract's deployed code is
`runtime` followed by its immutables, each in a word, at the offsets listed; `runtime_length` is where they start.

Custom errors are raised by selector in Vyper 0.4.3, which leaves them out of its ABI; they are added here, from
every `raw_revert(method_id("Name()"))` and `_refuse` (modules/refusals.vy) in the contract and the modules of ours that
it imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import vyper
from vyper.compiler import compile_from_file_input
from vyper.compiler.input_bundle import FilesystemInputBundle
from vyper.compiler.settings import OptimizationLevel, Settings

CONTRACTS = Path(__file__).resolve().parent
ARTIFACTS = CONTRACTS.parent / "channeld" / "chain" / "artifacts"
EVM_VERSION = "cancun"
# optimised for the gas of what runs often; the Adjudicator, near the size limit of a contract, for its size
SOURCES = {
    "Adjudicator.vy": OptimizationLevel.CODESIZE,
    "Rules.vy": OptimizationLevel.GAS,
    "FixBook.vy": OptimizationLevel.GAS,
    "RiskEngine.vy": OptimizationLevel.GAS,
    "Lens.vy": OptimizationLevel.CODESIZE,
    "testing/TestToken.vy": OptimizationLevel.GAS,
}
_ERROR = re.compile(r'(?:raw_revert\(|_refuse\(convert\()method_id\("(\w+)\(\)"')
_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+)?import\s+([\w.]+)", re.MULTILINE)


def imported(path: str) -> dict[str, str]:
    """The sources a contract is made of, by path relative to contracts/: itself, and what it imports of ours."""
    found: dict[str, str] = {}
    queue = [path]
    while queue:
        name = queue.pop(0)
        if name in found:
            continue
        found[name] = (CONTRACTS / name).read_text(encoding="utf-8")
        for package, module in _IMPORT.findall(found[name]):
            stem = f"{package}.{module}".strip(".").replace(".", "/")
            queue += [f"{stem}{suffix}" for suffix in (".vy", ".vyi") if (CONTRACTS / f"{stem}{suffix}").is_file()]
    return found


def immutables_of(layout: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The immutables of a contract and of its modules, by their own names."""
    found = []
    for name, entry in layout.items():
        found += [(name, entry)] if "offset" in entry else immutables_of(entry)
    return found


def compile_source(path: str, optimize: OptimizationLevel = OptimizationLevel.GAS) -> dict[str, Any]:
    """The artifact of one contract. path: relative to contracts/."""
    bundle = FilesystemInputBundle([CONTRACTS])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = compile_from_file_input(
            bundle.load_file(Path(path)),
            input_bundle=bundle,
            settings=Settings(optimize=optimize, evm_version=EVM_VERSION),
            output_formats=["abi", "bytecode", "bytecode_runtime", "layout"],
        )
    sources = imported(path)
    errors = sorted({name for text in sources.values() for name in _ERROR.findall(text)})
    runtime = output["bytecode_runtime"]
    start = len(runtime) // 2 - 1
    immutables = [
        {"name": name, "type": entry["type"], "offset": start + entry["offset"], "length": entry["length"]}
        for name, entry in sorted(
            immutables_of(output["layout"].get("code_layout", {})), key=lambda x: int(x[1]["offset"])
        )
    ]
    return {
        "name": Path(path).stem,
        "compiler": f"vyper {vyper.__version__}",
        "evm_version": EVM_VERSION,
        "optimize": str(optimize),
        "source_sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(sources.items())},
        "abi": output["abi"] + [{"type": "error", "name": name, "inputs": []} for name in errors],
        "bytecode": output["bytecode"],
        "runtime": runtime,
        "runtime_length": start,
        "immutables": immutables,
    }


def encoded(artifact: dict[str, Any]) -> str:
    """The text of an artifact's file."""
    return json.dumps(artifact, indent=1) + "\n"


def main() -> int:
    """Write the artifacts, or check them; 0 when they are (now) those of the sources."""
    parser = argparse.ArgumentParser(description="Compile the contracts to channeld/chain/artifacts.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing, fail on a difference")
    check = parser.parse_args().check
    stale = []
    for path, optimize in SOURCES.items():
        if not (CONTRACTS / path).is_file():
            sys.stdout.write(f"{path}: no such source\n")
            stale.append(path)
            continue
        artifact = compile_source(path, optimize)
        target = ARTIFACTS / f"{artifact['name']}.json"
        size = artifact["runtime_length"] + sum(entry["length"] for entry in artifact["immutables"])
        text = encoded(artifact)
        same = target.is_file() and target.read_text(encoding="utf-8") == text
        if not same and check:
            stale.append(path)
        elif not same:
            ARTIFACTS.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        state = "as committed" if same else "DIFFERS" if check else "written"
        sys.stdout.write(f"{artifact['name']}: {size} bytes of 24576, {state}\n")
    if stale:
        sys.stdout.write("Stale artifacts; run contracts/compile.py and commit what it writes.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
