"""Serve until Ctrl-C, and say what to set."""

import argparse
import sys
from pathlib import Path

import local_hub


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser("local_hub", description=local_hub.__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/hub"), help="where everything is kept")
    parser.add_argument("--port", type=int, default=7900, help="port to listen on, on this machine only")
    options = parser.parse_args()
    try:
        hub, variables = local_hub.open_hub(options.folder, options.port)
    except OSError as error:
        sys.exit(f"Port {options.port} cannot be used ({error}); choose another with --port.")
    print(f"A Hub on this machine, kept in {options.folder}. Ctrl-C stops it. In another terminal, set:\n")
    for name, value in variables.items():
        print(f"export {name}={value}")
    read = next(key for key, token in hub.tokens.items() if token.role == "read")
    print(f"\nThe user is called learner. A token that may only read: {read}", flush=True)
    try:
        hub.serve_forever()
    except KeyboardInterrupt:
        print("stopped.")


if __name__ == "__main__":
    main()
