"""The command line of the reference runs; every command can be interrupted and given again."""

import argparse
import json
from pathlib import Path

from course_utils import artifacts, cache
from course_utils.profiles import PROFILES, Profile
from tools.records import Record, machine
from tools.reference_runs import baselines, finetuning, ladder, loops, mixing, pretraining


def main(arguments: list[str] | None = None) -> None:
    """Run one command and write its file."""
    options = parse(arguments)
    profile, seeds = PROFILES[options.profile], list(range(1, options.seeds + 1))
    command = f"python -m tools.reference_runs {options.command}"
    command += "" if options.command in ("baselines", "mixing") else f" --seeds {options.seeds}"
    command += "" if options.profile == "laptop" else f" --profile {options.profile}"
    if options.command == "band":
        path = options.output or artifacts.REFERENCES / f"{profile.name}.json"
        result = {"command": command} | pretraining.band(profile, seeds)
        with cache.replacing(path) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
        print(f"final bits per byte {result['low'][-1]} to {result['high'][-1]}")
    elif options.command == "ladder":
        record = _record(options, profile, f"{command} --seconds {options.seconds:g}", seconds=options.seconds)
        ladder.climb(record, profile, options.seconds, seeds, options.only)
        print(ladder.table(record))
    elif options.command == "mixing":
        record = _record(options, profile, f"{command} --steps {options.steps} --depth {options.depth}")
        print(mixing.make(record, profile, options.depth, options.steps, options.only))
    elif options.command == "baselines":
        judges = {name: cache.file_sha256(path)[:16] for name, path in baselines.JUDGES.items()}
        record = _record(options, profile, " ".join([command, *(f"--model {m.name}" for m in options.model)]), **judges)
        print(baselines.compare(record, profile, options.model, options.rows))
    else:
        module = {"curves": pretraining, "weighted": loops, "finetuning": finetuning}[options.command]
        print(module.make(_record(options, profile, command), profile, seeds))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("tools.reference_runs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "band": "curves of a profile's training (notebook 04), as a band",
        "curves": "R04: three settings and two sizes of notebook 04, by steps",
        "weighted": "R05: plain and weighted loss of notebook 05",
        "finetuning": "R06: fine-tuning with the HF course's settings and with the recipe of notebook 06",
        "ladder": "R10: from the HF course's recipe to the modern one, in equal seconds",
        "mixing": "shares of library code and of tests, by short trainings of the modern recipe",
        "baselines": "gzip, counting, the model of notebook 04 and others, on text, idioms and tasks",
    }
    seeds = {"band": 2, "curves": 2, "weighted": 3, "finetuning": 3, "ladder": 2, "mixing": 1, "baselines": 1}
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--profile", choices=("tiny", "laptop"), default="laptop")
        command.add_argument("--seeds", type=int, default=seeds[name], help="so many, from 1 on")
        command.add_argument("--output", type=Path, help="another file than the committed one")
        if name == "ladder":
            command.add_argument("--seconds", type=float, default=100, help="of each training, without evaluations")
            command.add_argument("--only", nargs="+", help="rungs by number, from 0")
        if name == "mixing":
            command.add_argument("--steps", type=int, default=600, help="of each training")
            command.add_argument("--depth", type=int, default=4, help="blocks of the modern recipe")
            command.add_argument("--only", nargs="+", type=int, help="pairs of shares by number, from 0")
        if name == "baselines":
            command.add_argument("--model", type=Path, action="append", default=[], help="folder of another model")
            command.add_argument("--rows", type=int, default=0, help="most rows of each kind of text; 0: all")
    return parser.parse_args(arguments)


def _record(options: argparse.Namespace, profile: Profile, command: str, **common: object) -> Record:
    data = artifacts.packed_data(profile)
    common |= {
        "profile": profile.name,
        "data": data.digest,
        "held_out": [data.validation_tokens, data.validation_bytes],
    }
    common |= {"machine": machine()} if options.command == "ladder" else {}
    about = {} if "machine" in common else {"machine": machine()}
    return Record(options.output or artifacts.REFERENCES / f"{options.command}.json", common, command=command, **about)


if __name__ == "__main__":
    main()
