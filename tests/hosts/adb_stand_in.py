#!/usr/bin/env -S python3 -I -S
"""A stand-in for adb: its command line, with folders of this machine in place of phones. No phone is behind it.

The folder that `ADB_STAND_IN` names holds `phones.json`: serial -> `state` (as `adb devices` prints it), `root` (the
phone's files: `data/local/tmp`, `sys`, and `bin` with its `getprop` and `dumpsys`) and `fails`, what is to go wrong:
`full`, `corrupt` and `hang` (pushes), `deaf` (shells answer nothing), `daemon` (there is no server).
Each running shell has a file `shells/PID`; ending that process is pulling the cable.
"""

# Little is imported: it is started many times.
import json
import os
import re
import signal
import sys
import time

HOME = os.environ["ADB_STAND_IN"]


def main(arguments):
    serial = None
    if arguments[:1] == ["-s"]:
        serial, arguments = arguments[1], arguments[2:]
    command, *rest = arguments
    with open(f"{HOME}/calls", "a") as log:
        log.write(f"{command} {' '.join(rest)[:60]!r}\n")
    with open(f"{HOME}/phones.json") as file:
        phones = json.load(file)
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
    copy(source, there(phone, target), b"?" if "corrupt" in fails else b"")
    print(f"{source}: 1 file pushed")
    return 0


def pull(phone, source, target):
    if not os.path.exists(there(phone, source)):
        print(f"adb: error: failed to stat remote object '{source}': No such file or directory", file=sys.stderr)
        return 1
    copy(there(phone, source), target)
    return 0


def copy(source, target, more=b""):
    with open(source, "rb") as given, open(target, "wb") as made:
        made.write(given.read() + more)


def shell(phone, *words):
    script = there(phone, " ".join(word for word in words if word != "-T"))
    if "deaf" in phone.get("fails", ()):
        time.sleep(600)
    environment = {**os.environ, "PATH": f"{phone['root']}/bin:{os.environ['PATH']}", "PHONE": phone["root"]}
    child = os.fork()
    if child == 0:
        os.execve("/bin/sh", ["sh", "-c", script], environment)

    def cut(*_):
        # As adbd does it when the connection is gone.
        os.kill(child, signal.SIGHUP)
        os._exit(255)

    mark = f"{HOME}/shells/{os.getpid()}"
    signal.signal(signal.SIGTERM, cut)
    with open(mark, "w") as file:
        file.write(script)
    _, status = os.waitpid(child, 0)
    if os.path.exists(mark):
        os.unlink(mark)
    return os.waitstatus_to_exitcode(status) % 256


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
