"""The command line of the course. Every command imports what it needs when it runs, so `--help` answers at once."""

import argparse
import itertools
import os
import sys
import time
from pathlib import Path

from course_utils import cache, language
from course_utils.profiles import LOCATION_WORDS, PROFILES, get_profile, make_variables_absolute


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, 1 if something failed, 2 for bad input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        make_variables_absolute()
        return options.command(options)
    except KeyboardInterrupt:
        return _fail("stopped.", 130)
    except (ValueError, OSError) as error:
        return _fail(str(error), 2 if isinstance(error, ValueError) else 1)


def _fail(message: str, code: int) -> int:
    print(f"course_utils: {message}", file=sys.stderr)
    return code


def _folder(text: str) -> Path:
    return cache.expanded(text).absolute()


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give at least 1, or leave the option out.")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m course_utils", description="The commands of the course.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="what this machine is, and what each profile costs on it")
    doctor.add_argument("--report", action="store_true", help="a few lines for a bug report; nothing is trained")
    doctor.set_defaults(command=_doctor)

    fetch = commands.add_parser("fetch", help="download and build the code corpora, so that no network is needed later")
    fetch.add_argument("--profile", help="only for this profile (default: tiny and laptop)")
    fetch.add_argument("--clean", action="store_true", help="remove what other versions left in the cache, and stop")
    fetch.set_defaults(command=_fetch)

    run = commands.add_parser("run", help="execute notebooks in order and write copies and HTML pages")
    run.add_argument("names", nargs="*", metavar="NOTEBOOK", help="numbers or names (default: all)")
    run.add_argument("--profile", help="tiny, laptop or full (default: COURSE_PROFILE, or laptop)")
    run.add_argument("--notebooks", type=_folder, metavar="DIR", help="where they are (default: by COURSE_LANGUAGE)")
    run.add_argument("--output", type=_folder, default="build", metavar="DIR", help="where results go")
    run.add_argument("--timeout", type=_positive, metavar="SECONDS", help="longest time for one cell (default: none)")
    run.add_argument("--keep-going", action="store_true", help="run the others after a failure")
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="a page in the browser: completions, and surprising code marked")
    demo.add_argument("--profile", help="use the model that notebook 04 trained with this profile")
    demo.add_argument("--model", type=_folder, metavar="FOLDER", help="use the model and tokenizer saved here instead")
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    demo.add_argument("--port", type=_positive, help="port to listen on (default: the first free one from 7860)")
    demo.add_argument("--no-browser", action="store_true", help="do not open the page")
    demo.set_defaults(command=_demo)

    hub = commands.add_parser("hub", help="who is logged in; push a folder; merge the best run into main")
    hub.add_argument("action", choices=("whoami", "push", "merge"))
    hub.add_argument("names", nargs="*", metavar="NAME", help="push: FOLDER owner/name; merge: owner/name")
    hub.add_argument("--branch", default="", help="branch to push to (default: main) or to merge (default: the best)")
    hub.add_argument("--public", action="store_true", help="let everyone see a repository that is new")
    hub.set_defaults(command=_hub)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from course_utils import environment

    machine = environment.describe()
    for name, value in vars(machine).items():
        text = ", ".join(map(" ".join, value.items())) if isinstance(value, dict) else value
        print(f"{name:<16} {text:.1f}" if isinstance(value, float) else f"{name:<16} {text}")
    if options.report:
        from course_utils.sandbox.running import probe

        levels = (f"{level}: {problem or 'works'}" for level, problem in probe().items())
        print(f"{'sandbox':<16} {'; '.join(levels)}")
        print(f"{'variables':<16} {', '.join(name for name in sorted(os.environ) if name.startswith('COURSE_'))}")
        return 0
    print("\nWhat training costs here, from a few measured steps:", flush=True)
    print(f"{'profile':<8} {'time':>11} {'memory':>9} {'disk':>9}")
    costs = [environment.profile_cost(profile, machine) for profile in PROFILES.values()]
    for cost in costs:
        duration = environment.readable_duration(cost.minutes)
        print(f"{cost.profile:<8} {duration:>11} {cost.memory_gb:>6.1f} GB {cost.disk_gb:>6.1f} GB  {cost.note}")
    print(
        "\nWhat 5 minutes of today's recipe allow (--preset modern --depth BLOCKS), an estimate: GPUs at 20 to 40 % of"
    )
    print("their peak. For more than about 15 million tokens bring text of your own; repetitions teach less and less.")
    print(f"{'machine':<8} {'blocks':>7} {'million parameters':>19} {'million tokens':>15}")
    for name, (slow, fast) in environment.training_plans(next(c for c in costs if c.profile == "laptop")).items():
        units = zip(slow, fast, (1, 1e6, 1e6), strict=True)
        ranges = (f"{a / unit:.0f}" + (f"-{b / unit:.0f}" if b > a else "") for a, b, unit in units)
        print("{:<8} {:>7} {:>19} {:>15}".format(name, *ranges))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from course_utils import artifacts
    from course_utils.data import paraphrases
    from course_utils.training import finetuning

    if options.clean:
        number, size = artifacts.remove_outdated()
        print(f"removed {number} folders of other versions, {size / 1e6:.0f} MB")
        return 0
    for name in [options.profile] if options.profile else ["tiny", "laptop"]:
        start, profile = time.monotonic(), get_profile(name)
        corpora = [artifacts.code_corpus(profile)]
        corpora += [artifacts.filtered_corpus(profile)] if profile.filtered_corpus else []
        for corpus, split in itertools.product(corpora, ("train", "validation")):
            next(iter(corpus.load(split, streaming=True)), None)
        for location in (profile.pairs, profile.sentences):
            paraphrases.load_pairs(location)
        try:
            if profile.encoder not in LOCATION_WORDS:
                finetuning.load_classifier(profile.encoder)
        except OSError as error:  # of the library, which does not always name it
            raise ConnectionError(f"COURSE_ENCODER={profile.encoder} opens neither here nor from the Hub.") from error
        print(f"{name}: {corpora[0].path} ({time.monotonic() - start:.1f} s)", flush=True)
    return 0


def _run(options: argparse.Namespace) -> int:
    profile = os.environ["COURSE_PROFILE"] = get_profile(options.profile).name  # the kernels inherit it
    cache.expanded("~")  # Jupyter does not start without one; this says so in a sentence
    from course_utils import runner

    folder = "notebooks" if (code := language.chosen()) == "en" else f"translations/{code}/notebooks"
    notebooks = runner.select(options.notebooks or _folder(folder), options.names)
    start = time.monotonic()
    outcomes = runner.run(notebooks, options.output, options.timeout, options.keep_going)
    for outcome in outcomes:
        if outcome.error:
            print(f"\n{outcome.error}", file=sys.stderr)
    statuses = [outcome.status for outcome in outcomes]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in ("passed", "failed", "not run"))
    print(f"\n{counts} in {time.monotonic() - start:.0f} s (profile {profile}). See {options.output / 'html'}.")
    return int(set(statuses) != {"passed"})


def _demo(options: argparse.Namespace) -> int:
    profile = get_profile(options.profile)
    from course_utils import demo

    folder, name = (options.model, options.model.name) if options.model else demo.saved_model(profile)
    demo.serve(folder, options.host, options.port, not options.no_browser, name)
    return 0


def _hub(options: argparse.Namespace) -> int:
    from course_utils import hub

    if len(options.names) != (needed := ("whoami", "merge", "push").index(options.action)):
        raise ValueError(f"{options.action} takes {needed} names: hub merge owner/name, hub push FOLDER owner/name.")
    try:
        if options.action == "whoami":
            print(hub.login()[1])
        elif options.action == "push":
            folder, branch = _folder(options.names[0]), options.branch or "main"
            if not folder.is_dir():  # before a repository is made
                raise ValueError(f"{folder} is no folder; give one with a model, such as runs/first/final.")
            found = hub.push(folder, hub.prepare(options.names[1], branch, not options.public), branch)
            print(f"{folder} is on the Hub: {found}, branch {branch}")
        else:
            bits = hub.merge(options.names[0], options.branch)
            print(", ".join(f"{name}: {value:.4f} bits per byte" for name, value in bits.items()))
            print(f"main is the run {next(iter(bits))} now")
    except ValueError:  # ours
        raise
    except Exception as error:  # of the Hub, which has many
        return _fail(f"{(options.names or ['the Hub'])[-1]}: {hub.explain(error)[0]}.", 1)
    return 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a Windows console may lack a character of a learner's code
    sys.exit(main())
