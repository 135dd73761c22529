"""The untrusted side: shuts itself in, loads a program, and answers calls of one of its functions.

It is started alone, with `python -I -S`, and imports only its two neighbours. It knows nothing of the test: it is sent
arguments and sends back values. Whatever the program does to this process, it can only change these answers.
"""

import builtins
import errno
import os
import sys

if __package__:
    from course_utils.sandbox import confinement, values
else:
    import confinement
    import values

# Errors of the operating system that say that something was not allowed, or that a disk limit was reached.
_REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EFBIG})
_TEXT = 500  # characters of an error's message
_NO_MEMORY = values.packed(["exception", "MemoryError", [], "", "memory"])


def main() -> None:
    """Confine this process as the first message says, then answer until the pipe is closed."""
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    setup = values.receive(requests)
    try:
        _confine(setup)
    except (OSError, ValueError) as error:
        return values.send(answers, values.packed(["unconfined", str(error)]))
    os.dup2(nowhere, 2)  # last, so that the reason of a failure above can be read
    values.send(answers, values.packed(["ready"]))
    try:
        _serve(requests, answers)
    except EOFError:
        os._exit(0)  # not waiting for threads


def _confine(setup: dict) -> None:
    sys.path = [path for path in sys.path if path != os.path.dirname(__file__)] + setup["packages"]  # noqa: PTH120
    confinement.set_limits(**setup["limits"])
    if sys.platform == "linux":
        confinement.drop_privileges()
    if setup["landlock"]:
        confinement.landlock(setup["readable"], setup["listable"], setup["writable"])
    if setup["seccomp"]:
        confinement.seccomp()


def _serve(requests: int, answers: int) -> None:
    """Answer ["load", program, name] and then every ["call", arguments, keywords]."""
    function = None
    while True:
        kind, first, second = values.receive(requests)
        try:
            if kind == "load":
                function, answer = _load(first, second), ["value", None]
            else:
                result = function(*values.decode(first), **values.decode(second))
                answer = ["value", values.encode(result, convert=True)]
            message = values.packed(answer)
        except values.NotPlain as error:
            message = values.packed(["not plain", str(error)[:_TEXT]])
        except MemoryError:
            message = _NO_MEMORY
        except BaseException as error:  # also SystemExit and KeyboardInterrupt
            message = values.packed(_report(error))
        values.send(answers, message)


def _load(program: str, name: str) -> object:
    module = type(sys)("candidate")  # a real module: dataclasses look it up
    sys.modules["candidate"] = module
    exec(compile(program, "<program>", "exec", dont_inherit=True, optimize=0), vars(module))
    if not callable(getattr(module, name, None)):
        raise NameError(f"the program defines no function {name}")
    return getattr(module, name)


def _report(error: BaseException) -> list:
    known = [base.__name__ for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base]
    try:
        text, refused = str(error)[:_TEXT], _was_refused(error)
    except Exception:
        text, refused = "its text cannot be made", False
    return ["exception", type(error).__name__[:_TEXT], known, text, "forbidden" if refused else ""]


def _was_refused(error: BaseException | None) -> bool:
    """Say whether an error of the system is a refusal, or one that a library has made from a refusal (`URLError`)."""
    refused = False
    for _ in range(10 if isinstance(error, OSError) else 0):
        refused |= isinstance(error, OSError) and error.errno in _REFUSALS
        error = error and (error.__cause__ or error.__context__)
    return refused
