"""The program that opens an artifact in its own runtime, in a process of its own, on this machine or a device.

The folder is run as a program (`python -I .../worker JOB.json`) and copied as it is to other machines. So it holds to
two rules: it imports the standard library, numpy and the one runtime that the job names, nothing else, and inside the
folder every import is relative.
"""
