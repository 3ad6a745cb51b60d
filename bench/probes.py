"""Suites on candidates: candidate-failover, probe."""

import itertools
import random
import re
import signal
import socket
import time

import contenders
from answers import web, web_addresses
from contenders import ZONE, Setup, haproxy
from lib import LOAD, SERVER, Client, Proc, counter, free_port, say, wait
from table import Table

LIMIT = 20  # seconds until a candidate counts as never given up
SHORTEST = 'interval = "10ms"\nfast_interval = "10ms"\ntimeout = "100ms"\nfall = 1\nrise = 1'
# name: (what runs, its settings, seconds over which the deaths are spread: an interval of it)
CASES = {
    "hard, defaults": ("hard", "", 2),
    "HAProxy, defaults": ("haproxy", "", 2),
    "hard, watch": ("hard", "watch = true", 2),
    "hard, shortest": ("hard", SHORTEST, 0.5),
    "HAProxy, shortest": ("haproxy", "inter 10ms fall 1 rise 1", 0.5),
}


class Hard:
    """hard with one name for each group of candidates."""

    def __init__(self, run, settings, groups):
        s = Setup(run.tools, run.new_dir(), free_port())
        names = ""
        for i, group in enumerate(groups):
            addresses = ", ".join(f'"{a}"' for a, _ in group)
            names += f'[name."g{i}.{ZONE}"]\ncheck = "http://:{group[0][1]}/"\ncandidates = [{addresses}]\n'
        self.groups = groups
        self.proc = Proc([f"{run.tools}/hard", contenders.hard_config(s, settings, names)], SERVER, s.dir + "/log")
        self.client = Client("127.0.0.1", s.port)

    def given(self, group):
        """The address that is given out for a group now, or None."""
        got = self.client.ask(f"g{group}.{ZONE}", 1)
        return got[0][0] if got else None


class HAProxy:
    """HAProxy with one backend for each group; it gives out the first server that is up."""

    def __init__(self, run, settings, groups):
        s = Setup(run.tools, run.new_dir(), free_port())
        self.groups, self.stats = groups, s.dir + "/stats"
        self.proc = Proc(haproxy(s, groups, settings), SERVER, s.dir + "/log")

    def given(self, group):
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(self.stats)
            except OSError:
                return None
            s.sendall(f"show servers state b{group}\n".encode())
            text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        up = re.search(r"^\d+ \S+ \d+ \S+ (\S+) 2 ", text, re.M)  # id, backend, id, server, address, state 2: running
        return up[1] if up else None


def candidate_failover(run):
    """Each name has two candidates; the one given out is killed (refuses) or stopped (hangs). Seconds until another is."""
    groups = 3 if run.quick else 8
    columns = [("seconds", "took", 3, False), ("never, per round", "never", 0, False), ("deaths per round", "deaths", 0, False)]
    tables = {how: Table(f"candidate-failover: {how}", *columns, first="prober") for how in ("killed", "stopped")}
    for rnd, how, name in itertools.product(range(run.rounds), tables, CASES):
        kind, settings, spread = CASES[name]
        if not run.has(kind):
            continue
        with run.survive(name):
            times = deaths(run, Hard if kind == "hard" else HAProxy, settings, spread, groups, how)
            for i, t in enumerate(times):  # every death counts by itself in the median
                tables[how].put(name, (rnd, i), {"took": t})
            tables[how].put(name, rnd, {"never": times.count(None), "deaths": len(times)})
            say(f"  {how}: {name}: " + " ".join("never" if t is None else f"{t:.3f}" for t in times))
    list(tables.values())[-1].notes = [
        "A stopped process still accepts connections (the kernel does); only its silence shows that it hangs. Never: not within "
        f"{LIMIT} s. Shortest: checks every 10 ms, timeout 100 ms, one miss is enough.",
    ]
    return list(tables.values())


def deaths(run, system, settings, spread, groups, how):
    """The seconds from each death to the change of what is given out; None where it did not change."""
    port = free_port()
    pairs = [[(f"127.4.{g}.{i + 1}", port) for i in range(2)] for g in range(groups)]
    servers = {}
    try:
        for a, p in itertools.chain(*pairs):
            servers[a] = Proc([f"{run.tools}/httpd", a, str(p), "1", f"{run.tmp}/count-{a}"], LOAD, run.tmp + "/httpd.log", nice=0)
        prober = system(run, settings, pairs)
        with prober.proc:
            if wait(lambda: all(prober.given(g) for g in range(groups)), 10, 0.05) is None:
                raise RuntimeError("no candidate is given out")
            time.sleep(3)  # every candidate has its verdict, watched connections are open
            return kill_and_watch(prober, servers, spread, groups, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    finally:
        for s in servers.values():
            s.stop()


def kill_and_watch(prober, servers, spread, groups, sig):
    start = time.monotonic()
    due = {g: start + random.uniform(0, spread) for g in range(groups)}
    victim, died, took = {}, {}, {}
    while len(took) < groups and time.monotonic() < start + spread + LIMIT:
        for g in range(groups):
            if g not in died and time.monotonic() >= due[g]:
                victim[g] = prober.given(g)
                died[g] = time.monotonic()
                servers[victim[g]].signal(sig)
            elif g in died and g not in took and prober.given(g) not in (None, victim[g]):
                took[g] = time.monotonic() - died[g]
        time.sleep(0.0005)
    return [took.get(g) for g in range(groups)]


def probe(run):
    """2,000 HTTP candidates, each checked once a second by a connection of its own."""
    count, port = 2000, free_port()
    columns = [("CPU us/check", "cpu_us", 1, True), ("checks/s", "rate", 0, False), ("PSS MiB", "pss", 1, True)]
    table = Table(f"probe: {count:,} HTTP candidates, one check a second each", *columns, first="prober")
    targets = [(a, port) for a in web_addresses(count)]

    def hard(s):
        names = contenders.hard_probed([a for a, _ in targets], port)
        return [f"{run.tools}/hard", contenders.hard_config(s, 'interval = "1s"', names)]

    commands = {"hard": hard, "HAProxy": lambda s: haproxy(s, [targets], "inter 1s")}
    with web(run, port, count):
        for rnd, name in itertools.product(range(run.rounds), commands):
            if not run.has(name.lower()):
                continue
            s = Setup(run.tools, run.new_dir(), free_port())
            with Proc(commands[name](s), SERVER, s.dir + "/log") as p, run.survive(name):
                time.sleep(4)  # start-up is over
                if not p.alive():
                    raise RuntimeError(f"{name} ended")
                n, cpu, t = counter(run.web_counter), p.cpu(), time.monotonic()
                time.sleep(3 * run.seconds)
                n, cpu, t = counter(run.web_counter) - n, p.cpu() - cpu, time.monotonic() - t
                table.add(name, rnd, {"cpu_us": cpu * 1e6 / max(n, 1), "rate": n / t, "pss": p.pss_mib()})
    return [table]
