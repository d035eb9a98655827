# noqa: INP001 - a script's own module, in no package
# ruff: noqa: ANN401 - the nodes and types of the compiler have no types to name here
# ruff: noqa: SLF001 - the compiler offers no other places to hold it by
"""Compiles one contract once, function by function, and then each mutant of it by what the mutant changes.

Rules: what comes out is to the byte what the compiler makes of the mutant's sources, less the hash of the sources in
the note behind the code; `Whole` is raised where that is not certain (a constant or a pragma changed, a module is
used no longer): a plain compilation then has the last word. `mutant` changes the trees it holds: it is called once,
in a fork. Of Vyper 0.4.3 alone; `scripts/mutate_contracts.py --check-compiler` compares mutants with plain
compilations.

What is shared: the annotated trees of all modules, and of every function that neither changes nor calls one whose frame
changes the optimised intermediate code. Names of labels go on counting: they are in no code.
"""

from __future__ import annotations

import copy
import functools
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import vyper.ast as vy
from vyper.ast.parse import parse_to_ast
from vyper.codegen import core, jumptable_utils
from vyper.codegen import module as codegen
from vyper.codegen.ir_node import IRnode
from vyper.compiler.input_bundle import FilesystemInputBundle
from vyper.compiler.phases import CompilerData, generate_assembly, generate_bytecode
from vyper.compiler.settings import OptimizationLevel, Settings, anchor_settings
from vyper.exceptions import VyperException
from vyper.ir import compile_ir, optimizer
from vyper.semantics.analysis.constant_folding import ConstantFolder
from vyper.semantics.analysis.local import FunctionAnalyzer
from vyper.semantics.analysis.module import _compute_reachable_set
from vyper.semantics.analysis.utils import get_exact_type_from_node
from vyper.semantics.namespace import Namespace, override_global_namespace
from vyper.semantics.types.function import ContractFunctionT
from vyper.utils import OrderedSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from contract_mutants import Mutant

# the operators whose operands the optimizer treats in their own way
SENSITIVE = {"iszero", "if", "assert"}


class Whole(Exception):  # noqa: N818 - no error: an answer
    """Only a plain compilation tells."""


class Refused(Exception):  # noqa: N818 - the same
    """The compiler's analysis of the function that changed refuses it; `str` is the name of the compiler's error."""


def fast_compiler() -> None:
    """Halves the time of any compilation without changing what it makes.

    The optimizer visits what it has settled already again and again, every node's text is made for messages, the hash
    of the selectors is sought anew, and each instruction is told its line at every level that it passes.
    """
    original = optimizer._optimize

    def settled(node: Any, parent: Any) -> tuple[bool, Any]:
        key = parent.value if parent is not None and parent.value in SENSITIVE else ""
        if key in node.__dict__.get("_settled", ()):
            return False, node
        changed, result = original(node, parent)
        if not changed:
            result.__dict__.setdefault("_settled", set()).add(key)
        return changed, result

    optimizer._optimize = settled
    IRnode.__repr__ = lambda _: ""
    sought = functools.cache(jumptable_utils.generate_dense_jumptable_info)
    jumptable_utils.generate_dense_jumptable_info = lambda signatures: sought(tuple(signatures))
    compile_ir._compile_to_assembly = compile_ir._compile_to_assembly.__wrapped__


@dataclass
class Kept:
    """A function's optimised intermediate code, and the frame it was made for."""

    made: Any
    info: Any


class Incremental:
    """A contract, compiled; its mutants compile the quicker."""

    def __init__(self, path: str, sources: dict[str, str], optimize: OptimizationLevel, evm_version: str) -> None:
        """Compile it.

        Args:
            path: The contract, relative to contracts/.
            sources: All texts that it is made of, by the same paths.
            optimize: What its artifact is optimised for.
            evm_version: Its artifact's.
        """
        fast_compiler()
        self.path, self.sources = path, sources
        self.kept: dict[tuple[int, bool], Kept] = {}
        # functions that changed; and those whose frames did, so that their callers must be made again
        self.dirty: set[int] = set()
        self.moved: set[int] = set()
        self.settings = Settings(optimize=optimize, evm_version=evm_version)
        with _folder_of(sources) as folder:
            bundle = FilesystemInputBundle([folder])
            self.data = CompilerData(bundle.load_file(Path(path)), bundle, settings=self.settings)
            with anchor_settings(self.data.settings):
                self.module_t = self.data.global_ctx
                self.modules: dict[str, Any] = {}
                self._collect(self.module_t, folder)
                self._keep_functions()
                self.code = self._code()

    def _collect(self, module_t: Any, folder: Path) -> None:
        tree = module_t._module
        name = str(Path(tree.resolved_path).resolve().relative_to(folder))
        if name in self.modules:
            return
        self.modules[name] = tree
        for info in module_t.imported_modules.values():
            path = Path(info.module_t._module.resolved_path).resolve()
            if path.is_relative_to(folder):
                self._collect(info.module_t, folder)

    def _keep_functions(self) -> None:
        internal, external = codegen._ir_for_internal_function, codegen.generate_ir_for_external_function

        def keep_internal(tree: Any, module_t: Any, is_ctor_context: bool = False) -> Any:  # noqa: FBT001, FBT002 - its own
            make = lambda: optimizer.optimize(internal(tree, module_t, is_ctor_context))  # noqa: E731 - used once
            return self._function(tree._metadata["func_type"], is_ctor_context, make)

        def keep_external(tree: Any, module_t: Any) -> Any:
            def make() -> Any:
                made = external(tree, module_t)
                for entry in made.entry_points.values():
                    entry.ir_node = optimizer.optimize(IRnode.from_list(entry.ir_node))
                return replace(made, common_ir=optimizer.optimize(made.common_ir))

            made = self._function(tree._metadata["func_type"], False, make)
            # the caller writes into the entry points
            return replace(made, entry_points={name: replace(e) for name, e in made.entry_points.items()})

        codegen._ir_for_internal_function = keep_internal
        codegen.generate_ir_for_external_function = keep_external

    def _function(self, func_t: Any, is_ctor: bool, make: Callable[[], Any]) -> Any:  # noqa: FBT001 - as the compiler
        kept = self.kept.get((id(func_t), is_ctor))
        if kept and id(func_t) not in self.dirty and not any(id(f) in self.moved for f in func_t.called_functions):
            func_t._ir_info = kept.info
            return kept.made
        made = make()
        if kept is None:
            self.kept[id(func_t), is_ctor] = Kept(made, func_t._ir_info)
        else:
            old, new = kept.info.frame_info, func_t._ir_info.frame_info
            if (old.frame_start, old.frame_size) != (new.frame_start, new.frame_size):
                self.moved.add(id(func_t))
        return made

    def _code(self) -> str:
        deploy, _ = codegen.generate_ir_for_module(self.module_t)
        assembly = generate_assembly(optimizer.optimize(deploy), self.data.settings.optimize)
        return "0x" + generate_bytecode(assembly, compiler_metadata=bytes.fromhex(self.data.integrity_sum)).hex()

    def _reach(self) -> None:
        """Find anew which functions each reaches: their order is that of the code."""
        functions = list(_all_functions(self.module_t, set()))
        for func_t in functions:
            func_t.reachable_internal_functions = OrderedSet()
        for func_t in functions:
            _compute_reachable_set(func_t)

    def mutant(self, mutant: Mutant) -> str:
        """The creation code of a mutant, in hexadecimal. Once in a process, whose trees it changes.

        Raises:
            Whole: A plain compilation must tell.
            Refused: It does not compile.
        """
        if not mutant.function:
            raise Whole
        try:
            with warnings.catch_warnings(), anchor_settings(self.data.settings):
                warnings.simplefilter("ignore")
                try:
                    func_t = self._replaced(mutant)
                except VyperException as error:
                    raise Refused(type(error).__name__) from error
                self.dirty.add(id(func_t))
                # labels of the functions kept must not come again, whatever was compiled since
                core._label = 10**9
                # nothing is needed a second time here
                compile_ir.copy = SimpleNamespace(deepcopy=lambda node: node)
                return self._code()
        except Refused:
            raise
        except Exception as error:
            raise Whole from error
        finally:
            compile_ir.copy = copy

    def plain(self, mutant: Mutant) -> str:
        """The creation code of a mutant, in hexadecimal, all compiled anew.

        Raises:
            VyperException: It does not compile; the compiler has others.
        """
        sources = self.sources | {mutant.file: mutant.applied(self.sources[mutant.file])}
        with _folder_of(sources) as folder:
            bundle = FilesystemInputBundle([folder])
            data = CompilerData(bundle.load_file(Path(self.path)), bundle, settings=self.settings)
            with anchor_settings(data.settings):
                return "0x" + data.bytecode.hex()

    def _replaced(self, mutant: Mutant) -> Any:
        """Put the mutated function in the place of its original, with all that the compiler finds out about it."""
        module = self.modules[mutant.file]
        (old,) = module.get_children(vy.FunctionDef, {"name": mutant.function})
        text = self.sources[mutant.file]
        starts = [0, *(n + 1 for n, character in enumerate(text) if character == "\n"), len(text)]
        start = starts[min(node.lineno for node in (old, *old.decorator_list)) - 1]
        end = starts[old.end_lineno] + len(mutant.new) - len(mutant.old)
        # the function alone: where it stands matters to messages only
        alone = mutant.applied(text)[start:end]
        (new,) = parse_to_ast(alone, module.source_id, module.path, module.resolved_path).get_children(vy.FunctionDef)
        func_t = old._metadata["func_type"]
        for nodes in (module.body, module._children):
            nodes[next(n for n, node in enumerate(nodes) if node is old)] = new
        module._cache_descendants = None
        new.set_parent(module)
        new._metadata["func_type"] = func_t
        func_t.ast_def = new
        namespace = Namespace()
        with override_global_namespace(namespace), namespace.enter_scope():
            names = module._metadata["namespace"]
            namespace.update({name: item for name, item in names.items() if name not in namespace})
            # the module's own, which knows its variables and functions
            dict.__setitem__(namespace, "self", names["self"])
            folder = ConstantFolder(module)
            folder._get_constants()
            folder.visit(new)
            called = _called(new)
            if [*map(id, called)] != [*map(id, func_t.called_functions)]:
                func_t.called_functions = called
                self._reach()
            used = set(map(id, func_t._used_modules))
            for found in (func_t._variable_reads, func_t._variable_writes, func_t._used_modules):
                found.clear()
            func_t._analysed = False
            FunctionAnalyzer(module, new, namespace).analyze()
            if used != set(map(id, func_t._used_modules)):
                raise Whole
        return func_t


@contextmanager
def _folder_of(sources: dict[str, str]) -> Iterator[Path]:
    """A folder with these files, the compiler's warnings turned off."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, text in sources.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        yield Path(folder).resolve()


def bare(code: str) -> str:
    """What is deployed, less the compiler's note behind it, which holds a hash of the sources."""
    return code[: len(code) - 2 * int(code[-4:], 16)] if code else ""


def _all_functions(module_t: Any, seen: set[int]) -> Iterator[Any]:
    """All functions, those of imported modules first, as the compiler analyses them."""
    if id(module_t) in seen:
        return
    seen.add(id(module_t))
    for info in module_t.imported_modules.values():
        yield from _all_functions(info.module_t, seen)
    for tree in module_t._module.get_children(vy.FunctionDef):
        yield tree._metadata["func_type"]


def _called(tree: Any) -> OrderedSet:
    """The functions of ours that a function calls, as the compiler's own call graph finds them."""
    called: OrderedSet = OrderedSet()
    for call in tree.get_descendants(vy.Call):
        try:
            call_t = get_exact_type_from_node(call.func)
        except VyperException:
            continue
        if isinstance(call_t, ContractFunctionT) and (call_t.is_internal or call_t.is_constructor):
            called.add(call_t)
    return called
