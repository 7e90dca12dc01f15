from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings

import pytest

from compress.runtimes.quiet import quiet


def everything():
    os.write(1, b"native out\n")
    os.write(2, b"native error\n")
    print("python out")
    print("python error", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo child out; echo child error >&2"], check=True)
    logging.getLogger("converter").warning("logged")
    warnings.warn("warned", UserWarning, stacklevel=1)


def open_descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def test_nothing_that_native_code_python_or_a_child_prints_gets_out(capfd):
    print("before")
    with quiet():
        everything()
    print("behind")
    os.write(1, b"native behind\n")
    out, error = capfd.readouterr()
    assert out.split("\n") == ["before", "behind", "native behind", ""]
    assert error == ""


def test_streams_that_somebody_replaced_are_quiet_too():
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        with quiet():
            everything()
        print("behind")
    assert (out.getvalue(), error.getvalue()) == ("behind\n", "")


def test_everything_is_as_before_behind_an_exception(capfd):
    level = logging.root.manager.disable
    filters, streams = list(warnings.filters), (sys.stdout, sys.stderr)
    places = [os.fstat(descriptor) for descriptor in (1, 2)]
    before = open_descriptors()
    with pytest.raises(KeyError), quiet():
        everything()
        raise KeyError
    assert open_descriptors() == before
    assert [(one.st_dev, one.st_ino) for one in places] == [(os.fstat(d).st_dev, os.fstat(d).st_ino) for d in (1, 2)]
    assert logging.root.manager.disable == level
    assert list(warnings.filters) == filters
    assert (sys.stdout, sys.stderr) == streams
    os.write(2, b"heard\n")
    assert capfd.readouterr() == ("", "heard\n")


def test_an_interrupt_restores_too(capfd):
    with pytest.raises(KeyboardInterrupt), quiet():
        raise KeyboardInterrupt
    os.write(1, b"heard\n")
    assert capfd.readouterr().out == "heard\n"


def test_it_may_be_nested_and_repeated(capfd):
    before = open_descriptors()
    for _ in range(50):
        with quiet(), quiet():
            everything()
    assert open_descriptors() == before
    with quiet():
        with quiet():
            pass
        os.write(1, b"still quiet\n")
    assert capfd.readouterr() == ("", "")


def test_an_error_that_is_logged_is_not_held_back():
    class Handler(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    heard: list[str] = []
    logger, handler = logging.getLogger("converter"), Handler()
    logger.addHandler(handler)
    try:
        with quiet():
            logger.warning("a warning")
            logger.error("an error")
    finally:
        logger.removeHandler(handler)
    assert heard == ["an error"]
