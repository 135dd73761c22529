"""Hostile programs that look for secrets: in the environment and in files."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from attack import LINUX, attack, under, with_this_path

from course_utils.sandbox import levels
from course_utils.sandbox.levels import Level

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


@under("environment")
@pytest.mark.skipif(not LINUX, reason="/proc is Linux's")
def test_no_token_is_read_from_the_environment(level, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from attack import attack
        program = '''
        def attempt(parent):
            texts = [repr(os.environ)]
            for path in (f"/proc/{parent}/environ", "/proc/self/environ", f"/proc/{os.getppid()}/environ"):
                try: texts.append(open(path).read())
                except OSError: pass
            return [1 for text in texts if "-".join(("very", "secret")) in text]
        '''
        try:
            print(attack(program, sys.argv[1], os.getpid()).outcome)
        except RuntimeError as error:
            print("refused:", error)
        """)
    )
    variables = with_this_path(HF_TOKEN="very-secret")
    done = subprocess.run([sys.executable, script, level], env=variables, capture_output=True, text=True, check=True)
    assert "very-secret" not in done.stdout
    if level == Level.LIMITS:
        assert done.stdout.startswith("refused: The environment of this process has ")
        assert "HF_TOKEN" in done.stdout
    else:
        assert done.stdout == "passed\n"


@under("reading")
def test_nothing_of_the_user_or_the_course_is_read(level, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    course = Path(levels.__file__).parents[1]
    paths = [secret, tmp_path, Path.home(), Path.home() / ".bashrc", __file__, course, course / "data" / "sources.json",
             course.parent, "/", "/etc/passwd", "/etc/shadow", "/etc/hostname", f"/proc/{os.getpid()}/environ",
             f"/proc/{os.getpid()}/mem", f"/proc/{os.getpid()}/maps", "/proc/1/environ", "/proc/self/environ", "/proc",
             "/var/log", "/dev/mem", "/dev/kmsg", "/dev/tty", "/sys/class/net"]  # fmt: skip
    program = """
        def attempt(argument):
            paths, allowed = argument
            def leads_there(path): return any((place + "/").startswith(path + "/") for place in allowed)
            def read(path):
                if not os.path.isdir(path): return open(path)
                if all(leads_there(os.path.join(path, name)) for name in os.listdir(path)): raise OSError
            return went_through(**{path: lambda path=path: read(path) for path in paths})
    """
    # Under bubblewrap, the folders on the way to a readable one are there, but nothing else in them.
    allowed = [
        *levels.readable(),
        str(course / "evaluation"),
        sys._base_executable,
        "/dev/null",
        "/dev/urandom",
        "/sandbox-work",
    ]
    result = attack(program, level, ([str(path) for path in paths], allowed))
    assert result.outcome == "passed", result
    assert attack(program, level, (["/etc/ld.so.cache"], [])).outcome == "wrong answer"  # what is allowed is noticed


INSTALLED = """
import sys
from pathlib import Path
from attack import attack
import course_utils
folder = Path(__file__).parent / "site-packages"
sys.path.append(str(folder))
course_utils.__file__ = str(folder / "course_utils" / "__init__.py")  # as if it were installed there
program = '''
import neighbour
def attempt(path):
    return neighbour.ANSWER + went_through(read=lambda: open(path))
'''
print(attack(program, sys.argv[1], str(folder / "course_utils" / "data" / "test.jsonl")))
"""


@under("reading")
def test_an_installed_course_is_not_read_either(level, tmp_path):
    hidden = tmp_path / "site-packages" / "course_utils"
    (hidden / "data").mkdir(parents=True)
    (hidden / "data" / "test.jsonl").write_text("the tests")
    (hidden.parent / "neighbour.py").write_text("ANSWER = []\n")
    script = tmp_path / "script.py"
    script.write_text(INSTALLED)
    done = subprocess.run([sys.executable, script, level], env=with_this_path(), capture_output=True, text=True)
    assert "outcome='passed'" in done.stdout, (done.stdout, done.stderr)


@under("reading")
@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="only Linux has extended attributes")
def test_extended_attributes_are_not_read(level, tmp_path):
    secret = tmp_path / "download"
    secret.touch()
    try:
        os.setxattr(secret, "user.xdg.origin.url", b"https://host/?key=very-secret")
    except OSError:
        secret = Path(os.__file__)  # a disk without such attributes; asking for them is refused all the same
    program = """
        def attempt(path):
            def opened(action): return lambda: action(os.open(os.__file__, os.O_RDONLY))
            return went_through(
                value=lambda: os.getxattr(path, "user.xdg.origin.url"), names=lambda: os.listxattr(path),
                link=lambda: os.listxattr(path, follow_symlinks=False), file=opened(os.listxattr),
            )
    """
    result = attack(program, level, str(secret))
    assert result.outcome == "passed", result
