"""`python -m tests.systemd.lab`: boot a machine that stays up until Ctrl-C, to try things by hand.

With `--prepare`, only fill the cache, which takes minutes the first time.
"""

from __future__ import annotations

import argparse
import signal
import sys

from tests.systemd.lab import Application, Failed, Unavailable, boot, prepare


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.systemd.lab", description=__doc__)
    parser.add_argument("--prepare", action="store_true", help="fill the cache and end")
    parser.add_argument("--install", action="store_true", help="run `make install` in the machine")
    arguments = parser.parse_args()
    try:
        prepared = prepare()
        if arguments.prepare:
            return 0
        with boot(prepared) as machine:
            if arguments.install:
                Application(machine).install()
            print("It runs until Ctrl-C (or SIGTERM). To get in, as often as you like:\n")
            print(f"    nsenter -t {machine.pid} -a env -C / -i HOME=/root TERM=$TERM LANG=C.UTF-8 bash -l\n")
            print(f"Its files: {machine.root}; the source: /usr/src/jobqd; the application: /srv/shop", flush=True)
            ends = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)
            signal.sigwait(ends)
    except (Unavailable, Failed) as reason:
        print(f"no systemd lab here: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
