"""Runs a function once Keras is imported, so that importing tfprune need not import Keras.

Keras, and TensorFlow with it, takes seconds to import, which the shell's help or a report on a
`.tflite` file do not need. Yet a file that was saved with tfprune must load after `import tfprune`
and `import keras` in either order. Where Keras is there already, the function runs at once. Else a
finder at the head of `sys.meta_path` waits: it has the other finders find Keras, TensorFlow (which
imports Keras halfway through its own import) and the modules of tfprune, and counts which of them
are being executed. When the last of these has ended and Keras is there, the function runs, nothing
of it being half imported then, and the finder goes. Modules keep the loaders that they would have
had; an import that fails changes nothing; other modules are not looked at.

The function imports modules of tfprune while Keras' import lock may be held. A thread that imports
one of these at that moment may make it fail; then it is called again when that import has ended.
"""

from __future__ import annotations

import importlib.machinery
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_WATCHED = ("keras", "tensorflow")
_PACKAGE = f"{__name__.partition('.')[0]}."


class _Finder:
    """Counts the watched modules that are being executed, in all threads."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.lock = threading.Lock()
        self.executing = 0
        self.has_keras = False
        self.thread: int | None = None  # that runs the function
        self.is_disturbed = False  # by a watched module, while the function runs
        self.is_done = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the other finders give, with a loader that tells when it is done."""
        if self.is_done or not (name in _WATCHED or name.startswith(_PACKAGE)):
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None

    def begin(self) -> None:
        """A watched module is about to be executed."""
        with self.lock:
            self.executing += 1
            self.is_disturbed |= self.thread not in (None, threading.get_ident())

    def end(self, name: str, failed: bool) -> None:
        """A watched module was executed; raises what the function raises."""
        with self.lock:
            self.executing -= 1
            self.is_disturbed |= self.thread not in (None, threading.get_ident())
            self.has_keras |= name == "keras" and not failed
            if failed or self.executing or not self.has_keras or self.is_done or self.thread:
                return
            self.thread = threading.get_ident()
        self._run()

    def _run(self) -> None:
        """Run the function, again where another thread disturbed it, then leave."""
        while not self.is_done:
            self.is_disturbed = False
            try:
                self.function()
            except BaseException:
                with self.lock:
                    if self.is_disturbed and not self.executing:
                        continue
                    self.thread = None
                    if self.is_disturbed:  # the last of those that are executed runs it
                        return
                raise
            self.is_done = True
        # A new list: another thread that goes through the old one must not miss a finder.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]


class _Loader:
    """Another loader, which tells the finder when it executes a module."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: Any) -> None:
        """Execute the module by its own loader, which it keeps."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._finder.begin()
        failed = True
        try:
            self._loader.exec_module(module)
            failed = False
        finally:
            self._finder.end(module.__spec__.name, failed)


_finder: _Finder | None = None


def run_with_keras(function: Callable[[], Any]) -> None:
    """Run a function now if Keras is imported, else once it is; a second call changes nothing.

    Args:
        function: takes nothing; what it returns is dropped. It may run in any thread.
    """
    global _finder
    if "keras" in sys.modules:
        function()
    elif _finder is None:
        _finder = _Finder(function)
        sys.meta_path.insert(0, _finder)
