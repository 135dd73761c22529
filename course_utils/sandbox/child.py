"""The untrusted side: shuts itself in, loads a program, and answers calls of its functions.

It is started alone, with `python -I -S`, and imports only its two neighbours. It knows nothing of the test: whatever
the program does to this process, it can only change the values that it sends back.
"""

import builtins
import errno
import importlib.util
import os
import sys
from types import ModuleType

import confinement
import values

# Errors of the operating system that say that something was not allowed, or that nothing can be written.
_REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EFBIG})
_TEXT = 500  # characters of an error's message
_NO_MEMORY = values.packed(["exception", "MemoryError", [], "", "memory"])


def main() -> None:
    """Confine this process as the first message says, then answer until the pipe is closed."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    try:
        _confine(**values.receive(requests))
    except (OSError, ValueError) as error:
        return values.send(answers, values.packed(["unconfined", str(error)]))
    os.dup2(nowhere, 2)  # last, so that the reason of a failure above can be read
    values.send(answers, values.packed(["ready"]))
    module = type(sys)("candidate")  # a real module: dataclasses look it up
    sys.modules["candidate"] = module
    try:
        while True:
            values.send(answers, _answer(vars(module), *values.receive(requests)))
    except EOFError:
        os._exit(0)  # not waiting for threads


def _confine(limits: list, seccomp: bool, landlock: list | None, packages: list) -> None:
    sys.path = [path for path in sys.path if path != os.path.dirname(__file__)] + packages  # noqa: PTH120
    confinement.set_limits(*limits)
    if sys.platform == "linux":
        confinement.drop_privileges()
    if landlock:
        confinement.landlock(*landlock)
    if seccomp:
        confinement.seccomp()
    # PyTorch and Matplotlib cannot be imported where no folder seems to be writable, but put up with one that is not.
    _lazy("tempfile").tempdir, ask = os.getcwd(), os.access  # noqa: PTH109
    os.access = lambda path, mode, **how: mode == os.W_OK or ask(path, mode, **how)


def _lazy(name: str) -> ModuleType:
    """Return a module that is loaded at its first use: `tempfile` alone is a third of the time to start."""
    specification = importlib.util.find_spec(name)
    specification.loader = importlib.util.LazyLoader(specification.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _answer(names: dict, kind: str, *parts: object) -> bytes:
    """Answer "load" (program), "look" (name), or "call" (name, arguments, keywords)."""
    try:
        return values.packed({"load": _load, "look": _look, "call": _call}[kind](names, *parts))
    except values.NotPlain as error:
        return values.packed(["not plain", str(error)[:_TEXT]])
    except MemoryError:
        return _NO_MEMORY
    except BaseException as error:  # also SystemExit and KeyboardInterrupt
        return values.packed(_report(error))


def _load(names: dict, program: str) -> list:
    """Run the program; answer which of Python's own names it defines anew."""
    exec(compile(program, "<program>", "exec", dont_inherit=True, optimize=0), names)
    return ["value", [name for name in dir(builtins) if getattr(names.get(name), "__module__", "") == "candidate"]]


def _look(names: dict, name: str) -> list:
    """Answer with a constant, or that there is a function."""
    if name not in names:
        return ["exception", "NameError", [], f"the program does not define {name}", "exception"]
    if callable(names[name]) and type(names[name]) is not type:
        return ["function"]
    return ["value", values.encode(names[name], convert=True)]


def _call(names: dict, name: str, *sent: object) -> list:
    """Answer with what a function returned, and whether it changed its arguments."""
    if name not in names:
        return _look(names, name)
    arguments, keywords = map(values.decode, sent)
    before = [values.encode(arguments), values.encode(keywords)]
    result = values.encode(names[name](*arguments, **keywords), convert=True)
    try:
        changed = before != [values.encode(arguments), values.encode(keywords)]
    except (values.NotPlain, RuntimeError):
        changed = True
    return ["changed" if changed else "value", result]


def _report(error: BaseException) -> list:
    known = [base.__name__ for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base]
    try:
        text, refused = str(error)[:_TEXT], False
        cause = error if isinstance(error, OSError) else None
        for _ in range(10):  # also through one that a library has made from a refusal (`URLError`)
            refused |= isinstance(cause, OSError) and cause.errno in _REFUSALS
            cause = cause and (cause.__cause__ or cause.__context__)
    except Exception:
        text, refused = "its text cannot be made", False
    return ["exception", type(error).__name__[:_TEXT], known, text, "forbidden" if refused else ""]
