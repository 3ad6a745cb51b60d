"""What every suite needs: processes with exact CPU accounting, a small DNS client, loads."""

import ctypes
import glob
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

CPUS = sorted(os.sched_getaffinity(0))
SERVER, LOAD = {CPUS[0]}, {CPUS[-1]}  # the processor of the measured program, and that of what loads it
ALONE = len(CPUS) > 1  # the load has a processor of its own, so that it may spin
TICK = os.sysconf("SC_CLK_TCK")
FOREIGN = 0.1  # cores used by other programs above which a measurement is repeated
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def free_port():
    """A port that is free for UDP and TCP on all loopback addresses at this moment."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as t, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
            t.bind(("127.0.0.1", 0))
            port = t.getsockname()[1]
            try:
                u.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def read(path):
    with open(path, errors="replace") as f:
        return f.read()


def counter(path):
    """The count that httpd and udpd keep in a file; 0 before they have begun."""
    try:
        with open(path, "rb") as f:
            return struct.unpack("=Q", f.read(8))[0]
    except (OSError, struct.error):
        return 0


# --- processes ---------------------------------------------------------------


class Cgroup:
    """A control group that accounts CPU time in nanoseconds, children and ended threads included."""

    V1, V2 = "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"
    made = 0

    def __init__(self):
        Cgroup.made += 1
        root = self.V1 if os.path.exists(self.V1 + "/cpuacct.usage") else self.V2
        self.path = f"{root}/hard-bench-{os.getpid()}-{Cgroup.made}"
        os.mkdir(self.path)  # OSError: no cgroups here, or no right to make one
        self.v1 = root == self.V1
        try:
            self.seconds()
        except OSError:
            self.remove()
            raise

    def seconds(self):
        if self.v1:
            return int(read(self.path + "/cpuacct.usage")) / 1e9
        return int(read(self.path + "/cpu.stat").split("usage_usec ")[1].split()[0]) / 1e6

    def pids(self):
        return [int(p) for p in read(self.path + "/cgroup.procs").split()]

    def remove(self):
        try:
            os.rmdir(self.path)
        except OSError as e:
            say(f"  {self.path}: {e}")

    @staticmethod
    def remove_stale():
        for path in glob.glob(f"{Cgroup.V1}/hard-bench-*") + glob.glob(f"{Cgroup.V2}/hard-bench-*"):
            if not os.path.exists(f"/proc/{path.split('-')[-2]}"):
                try:
                    os.rmdir(path)
                except OSError:
                    pass


def prepare_child(cpus, nice=-10):
    """Runs in the child, before exec."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing outlives the harness
    os.sched_setaffinity(0, cpus)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)  # against other work on the machine
        write("/proc/self/autogroup", str(nice))  # where each session has its share of a processor, only this counts
    except OSError:
        pass  # not root, or no such groups


class Proc:
    """A program and its children, in a session (and control group) of its own; a context manager."""

    def __init__(self, argv, cpus, log=None, nice=-10):
        try:
            self.cgroup = Cgroup()
        except OSError:
            self.cgroup = None
        self.log = log

        def before_exec():
            if self.cgroup:
                write(self.cgroup.path + "/cgroup.procs", "0")
            prepare_child(cpus, nice)

        self.began = time.monotonic()
        with open(log or os.devnull, "ab") as out:
            try:
                io = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out}
                self.popen = subprocess.Popen(argv, **io, preexec_fn=before_exec, start_new_session=True)
            except OSError:
                if self.cgroup:
                    self.cgroup.remove()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def alive(self):
        return self.popen.poll() is None

    def pids(self):
        return self.cgroup.pids() if self.cgroup else [p for p, _ in self._session()]

    def _session(self):
        """(pid, fields of stat behind the name) of each process of the session."""
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = read(f"/proc/{entry}/stat").rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[3]) == self.popen.pid and fields[0] != "Z":
                    yield int(entry), fields

    def cpu(self):
        """CPU seconds so far; without control groups in steps of 10 ms."""
        if self.cgroup:
            return self.cgroup.seconds()
        return sum(int(f[11]) + int(f[12]) for _, f in self._session()) / TICK

    def pss_mib(self):
        """Memory, with each shared page counted once: rss would count it for every process."""
        kib = 0
        for pid in self.pids():
            try:
                kib += sum(int(l.split()[1]) for l in read(f"/proc/{pid}/smaps_rollup").splitlines() if l.startswith("Pss:"))
            except OSError:
                pass
        return kib / 1024

    def signal(self, sig):
        for pid in self.pids():
            try:
                os.kill(pid, sig)
            except OSError:
                pass

    def stop(self):
        self.signal(signal.SIGCONT)
        for sig in (signal.SIGTERM, signal.SIGKILL):
            self.signal(sig)
            if wait(lambda: not self.alive() and not self.pids(), 3, 0.005) is not None:
                break
        self.popen.wait()
        if self.cgroup:
            self.cgroup.remove()


def wait(true, limit, pause=0.001):
    """Seconds until true() is, or None after limit."""
    start = time.monotonic()
    while not true():
        if time.monotonic() > start + limit:
            return None
        time.sleep(pause)
    return time.monotonic() - start


# --- a DNS client ------------------------------------------------------------


class Client:
    def __init__(self, addr, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((addr, port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, name, timeout=0.2):
        """[(IPv4 address, TTL)] of name, [] for any other reply, or None when nothing came in time."""
        qid = random.randrange(1 << 16)
        labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
        question = labels + struct.pack("!BHH", 0, 1, 1)
        end = time.monotonic() + timeout
        try:
            self.socket.send(struct.pack("!6H", qid, 0x0100, 1, 0, 0, 0) + question)
            while (left := end - time.monotonic()) > 0:
                self.socket.settimeout(left)
                reply = self.socket.recv(4096)
                if reply[:2] == struct.pack("!H", qid):
                    return self.answers(reply, 12 + len(question))
        except OSError:
            pass
        return None

    @staticmethod
    def answers(reply, at):
        """The A records behind the question, which ends at; owners are pointers in all servers here."""
        found = []
        for _ in range(struct.unpack("!H", reply[6:8])[0]):
            rtype, _, ttl, size = struct.unpack("!HHIH", reply[at + 2 : at + 12])
            at += 12 + size
            if rtype == 1:
                found.append((socket.inet_ntoa(reply[at - size : at]), ttl))
        return found


def wait_ready(proc, port, name, want, limit=60):
    """Seconds from the start of proc to its first right answer; RuntimeError if there is none."""
    with Client("127.0.0.1", port) as c:
        while time.monotonic() < proc.began + limit and proc.alive():
            got = c.ask(name, 0.05)
            if got is not None and (want is None or want in [a for a, _ in got]):
                return time.monotonic() - proc.began
            time.sleep(0.001)
    raise RuntimeError("no right answer: " + (read(proc.log)[-400:] if proc.log else ""))


# --- loads and measurements --------------------------------------------------


def run_load(argv, limit=120):
    """The output of a load generator on its processor."""

    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.run(argv, **out, timeout=limit, preexec_fn=lambda: prepare_child(LOAD)).stdout


def parse_qload(out):
    values = {k: float(v) for k, _, v in (w.partition("=") for w in out.split()) if v}
    if "received" not in values:
        raise RuntimeError("qload: " + out.strip())
    return values


def machine_seconds():
    w = [int(x) for x in read("/proc/stat").split("\n", 1)[0].split()[1:]]
    return (w[0] + w[1] + w[2] + w[5] + w[6] + w[7]) / TICK


def own_seconds(helpers):
    """CPU time of the harness, of its load generators that have ended, and of helpers."""
    return sum(os.times()[:4]) + sum(h.cpu() for h in helpers)


def measure(server, load, helpers=(), tries=3):
    """What load() returned, and cpu_us: the CPU time of the server per query answered.

    load() returns at least "received". Repeated while other programs use the machine; the quietest try counts.
    """
    best = None
    for _ in range(tries):
        t0, all0, ours0, server0 = time.monotonic(), machine_seconds(), own_seconds(helpers), server.cpu()
        values = load()
        used, ours = server.cpu() - server0, own_seconds(helpers) - ours0
        values["foreign"] = (machine_seconds() - all0 - ours - used) / (time.monotonic() - t0)
        values["cpu_us"] = used * 1e6 / max(values["received"], 1)
        if best is None or values["foreign"] < best["foreign"]:
            best = values
        if best["foreign"] <= FOREIGN:
            break
    return best
