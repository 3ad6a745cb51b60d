"""Installs the peers from Debian and builds what is measured and what measures."""

import os
import shutil
import subprocess
import sys

from lib import read, say, write

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = {p: p for p in ("gdnsd", "nsd", "dnsdist", "unbound", "haproxy", "dnsperf", "gcc")} | {"knotd": "knot"}  # by program
POLICY = "/usr/sbin/policy-rc.d"  # asked by Debian's maintainer scripts before they start a service; 101: don't


def missing():
    return [p for p in PACKAGES if not shutil.which(p)]


def install():
    """Installs what is missing, without starting it now or at the next boot."""
    want = missing()
    if not want:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        say("not installed (that needs root and apt-get), so left out:", *want)
        return
    mine = not os.path.exists(POLICY)
    if mine:
        write(POLICY, "#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        subprocess.run(["apt-get", "update", "-qq"], env=env, stdout=sys.stderr, timeout=300)
        packages = ["libc6-dev"] + [PACKAGES[p] for p in want]
        subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends"] + packages, env=env, stdout=sys.stderr, timeout=900)
        if shutil.which("systemctl"):
            for service in (PACKAGES[p] for p in want if p not in ("dnsperf", "gcc")):
                subprocess.run(["systemctl", "disable", "--quiet", service], stderr=subprocess.DEVNULL, timeout=60)
    finally:
        if mine:
            os.remove(POLICY)
    if missing():
        say("could not be installed, so left out:", *missing())


def build(into, hard=()):
    """Puts qload, udpd, httpd and hard (built here, or copies of the programs given as name=path) into a directory."""
    if not shutil.which("gcc"):
        raise SystemExit("gcc is needed")
    for tool in ("qload", "udpd", "httpd"):
        subprocess.run(["gcc", "-O2", "-Wall", "-o", f"{into}/{tool}", f"{HERE}/{tool}.c"], check=True)
    if hard:
        for name, _, program in (h.partition("=") for h in hard):
            if program != "none":
                shutil.copy(program, f"{into}/{name}")
        return
    env, root = dict(os.environ, CGO_ENABLED="0"), os.path.dirname(HERE)
    if not shutil.which("go") or subprocess.run(["go", "build", "-o", f"{into}/hard", "./cmd/hard"], cwd=root, env=env).returncode:
        raise SystemExit("hard does not build; --hard PROGRAM takes one built before, --hard none only the peers")


def machine():
    """One line about the machine and one about the versions, for the head of the report."""
    cpu = next((l.split(":", 1)[1].strip() for l in read("/proc/cpuinfo").splitlines() if l.startswith("model name")), "unknown processor")
    system = next((l.split("=", 1)[1].strip('"') for l in read("/etc/os-release").splitlines() if l.startswith("PRETTY_NAME=")), "Linux")
    versions = []
    if shutil.which("dpkg-query"):
        query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"] + [p for p in PACKAGES.values() if p != "gcc"]
        out = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        versions = [l for l in out.splitlines() if len(l.split()) == 2]
    return f"{os.cpu_count()} x {cpu}, Linux {os.uname().release}, {system}.", ", ".join(versions) + "." if versions else ""
