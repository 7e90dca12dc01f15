#!/usr/bin/env -S python3 -I -S
"""A stand-in for adb: its command line, with folders of this machine in place of phones. No phone is behind it.

The folder that `ADB_STAND_IN` names holds `phones.json`: serial -> `state` (as `adb devices` prints it), `root` (the
phone's files: `data/local/tmp`, `sys`, and `bin` with its `getprop` and `dumpsys`) and `fails`, what is to go wrong:
`full`, `corrupt` and `hang` (pushes), `deaf` (shells answer nothing), `daemon` (there is no server).
Each running shell has a file `shells/PID`; ending that process is pulling the cable.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["ADB_STAND_IN"])


def main(arguments):
    serial = None
    if arguments[:1] == ["-s"]:
        serial, arguments = arguments[1], arguments[2:]
    command, *rest = arguments
    with (HOME / "calls").open("a") as log:
        log.write(f"{command} {' '.join(rest)[:60]!r}\n")
    phones = json.loads((HOME / "phones.json").read_text())
    if command == "start-server":
        return 0
    if command == "devices":
        if any("daemon" in phone.get("fails", ()) for phone in phones.values()):
            print("adb: error: cannot connect to daemon", file=sys.stderr)
            return 1
        print("List of devices attached")
        for name, phone in phones.items():
            print(f"{name}\t{phone['state']}")
        print()
        return 0
    phone = phones.get(serial)
    if phone is None:
        print(f"adb: device '{serial}' not found", file=sys.stderr)
        return 1
    if phone["state"] != "device":
        print(f"adb: device {phone['state']}.", file=sys.stderr)
        return 1
    return {"shell": shell, "push": push, "pull": pull, "get-state": get_state}[command](phone, *rest)


def there(phone, text):
    """Absolute paths of the phone, in a script or alone, as paths below its root."""
    return re.sub(r"(?<![\w.])/(data/local/tmp|sys/|proc/meminfo)", lambda found: f"{phone['root']}/{found[1]}", text)


def get_state(phone):
    print(phone["state"])
    return 0


def push(phone, source, target):
    fails = phone.get("fails", ())
    if "hang" in fails:
        time.sleep(600)
    if "full" in fails:
        print(f"adb: error: failed to copy '{source}' to '{target}': No space left on device", file=sys.stderr)
        return 1
    place = Path(there(phone, target))
    shutil.copyfile(source, place)
    if "corrupt" in fails:
        place.write_bytes(place.read_bytes()[:-1] + b"?")
    print(f"{source}: 1 file pushed")
    return 0


def pull(phone, source, target):
    place = Path(there(phone, source))
    if not place.exists():
        print(f"adb: error: failed to stat remote object '{source}': No such file or directory", file=sys.stderr)
        return 1
    shutil.copyfile(place, target)
    return 0


def shell(phone, *words):
    script = there(phone, " ".join(word for word in words if word != "-T"))
    if "deaf" in phone.get("fails", ()):
        time.sleep(600)
    environment = {**os.environ, "PATH": f"{phone['root']}/bin:{os.environ['PATH']}", "PHONE": phone["root"]}
    # As adbd does it: when the connection is gone, the shell gets SIGHUP and the end of its input.
    process = subprocess.Popen(["/bin/sh", "-c", script], env=environment, preexec_fn=hang_up_with_parent)
    mark = HOME / "shells" / str(os.getpid())
    mark.write_text(script)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(255))
    try:
        return process.wait() % 256
    finally:
        mark.unlink()


def hang_up_with_parent():
    ctypes.CDLL(None).prctl(1, int(signal.SIGHUP))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
