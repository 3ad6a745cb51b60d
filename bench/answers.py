"""Suites on names that the server itself knows: answer, work, tcp, startup."""

import itertools
import re
import signal
import time

import contenders
from contenders import ANSWER, Names
from lib import ALONE, CPUS, LOAD, SERVER, Client, Proc
from lib import counter, free_port, measure, parse_qload, read, run_load, wait, wait_ready
from table import Table

RATE = 10000
WEB = "127.3.0.1"  # the first address of the HTTP candidates
LATENCY = [  # columns: heading, key, digits, and whether hard's ratio stands beside it
    ("CPU us/query", "cpu_us", 2, True),
    ("p50 us", "p50_us", 0, True),
    ("p99 us", "p99_us", 0, True),
    ("kqps", "kqps", 1, False),
    ("lost %", "lost_pct", 2, False),
]
SPIN = ["-S"] if ALONE else []


def qload(run, port, *args, helpers=(), server):
    """CPU per query and latencies of one load."""
    argv = [f"{run.tools}/qload", "-p", str(port), "-l", str(run.seconds), *args]
    v = measure(server, lambda: parse_qload(run_load(argv)), helpers)
    if v["ok"] < 0.999 * v["received"] and v["ok"]:  # the echo has none at all
        raise RuntimeError(f"only {v['ok']:.0f} of {v['received']:.0f} replies were answers")
    return rates(v)


def rates(v):
    return v | {"kqps": v["qps"] / 1e3, "lost_pct": 100 * v["lost"] / max(v["sent"], 1)}


def each_contender(run, registry, wanted):
    """(round, name) of every installed contender, interleaved, so that a change of the machine's speed meets all."""
    for rnd in range(run.rounds):
        for name in [n for w in wanted for n in ([w] + contenders.EXTRA if w == "hard" else [w])]:
            if run.has(registry[name][0]) and (run.only is None or name in run.only):
                yield rnd, name


def answer(run):
    """10,000 names, A and AAAA: saturated, and at 10,000 queries a second."""
    names = Names(10000, run.tmp)
    saturated = Table("answer: 10,000 names, A and AAAA, saturated", *LATENCY)
    steady = Table(f"answer: the same at {RATE:,} queries a second", *LATENCY)
    for rnd, name in each_contender(run, ANSWER, ["C-echo", "hard", "gdnsd", "nsd", "knot", "dnsdist-cache", "unbound"]):
        server, port = contenders.start(ANSWER, name, run.tools, run.tmp, SERVER, names=names)
        with server, run.survive(name):
            wait_ready(server, port, names.hosts[-1][0], None if "echo" in name else names.hosts[-1][1])
            run_load([f"{run.tools}/qload", "-p", str(port), "-f", names.queries, "-q", "64", "-l", "0.4"])  # every name once
            saturated.add(name, rnd, qload(run, port, "-f", names.queries, "-q", "128", server=server))
            steady.add(name, rnd, qload(run, port, "-f", names.queries, "-Q", str(RATE), *SPIN, server=server))
    return [saturated, steady]


def work(run):
    """p99 of answers while 500 probes a second run and reloads swap the table."""
    if not run.has("hard"):
        return []
    names = Names(10000, run.tmp)
    columns = [*LATENCY, ("probes/s", "probes", 0, False), ("reloads/s", "reloads", 2, False)]
    table = Table(f"work: hard at {RATE:,} queries a second, 10,000 names", *columns, base="at work", first="hard")
    web_port = free_port()
    with web(run, web_port, 500) as httpd:
        for rnd, busy in itertools.product(range(run.rounds), (False, True)):
            s = contenders.Setup(run.tools, run.new_dir(), free_port(), names)
            toml = contenders.hard_static(s) + (contenders.hard_probed(web_addresses(500), web_port) if busy else "")
            defaults = 'check = "static:"\ninterval = "1s"\nttl = '
            configs = {ttl: read(contenders.hard_config(s, f'{defaults}"{ttl}s"', toml)) for ttl in (2, 1)}
            server = Proc([f"{run.tools}/hard", s.dir + "/hard.toml"], SERVER, s.dir + "/log")
            with server, run.survive("hard"):
                wait_ready(server, s.port, *names.hosts[-1][:2])
                time.sleep(2)  # first verdicts
                argv = [f"{run.tools}/qload", "-p", str(s.port), "-l", "4", "-f", names.queries, "-Q", str(RATE)]
                quiet = lambda: parse_qload(run_load(argv))
                at_work = lambda: with_reloads(run, server, s, configs, argv)
                v = measure(server, at_work if busy else quiet, [httpd])
                table.add("at work" if busy else "quiet", rnd, rates(v))
    table.notes = ["A reload changes the TTL of all names, so the whole table is built anew; it counts when an answer shows it."]
    return [table]


def with_reloads(run, server, s, configs, argv):
    """Runs the load while reloading again and again; adds the rates of probes and of reloads."""
    probes0, t0, seen = counter(run.web_counter), time.monotonic(), 0
    with Proc(argv, LOAD, run.tmp + "/qload.out") as gen, Client("127.0.0.1", s.port) as client:
        for ttl in itertools.cycle(configs):
            if wait(lambda: not gen.alive(), 1, 0.01) is not None:
                break
            s.file("hard.toml", configs[ttl])
            server.signal(signal.SIGHUP)
            seen += wait(lambda: (client.ask(s.names.hosts[0][0]) or [("", 0)])[0][1] == ttl, 1, 0.02) is not None
    v = parse_qload(read(run.tmp + "/qload.out").splitlines()[-1])
    t = time.monotonic() - t0
    return v | {"probes": (counter(run.web_counter) - probes0) / t, "reloads": seen / t}


def web_addresses(count):
    return [f"127.3.{(i + 1) // 256}.{(i + 1) % 256}" for i in range(count)]


def web(run, port, count):
    """HTTP candidates on count addresses from WEB on."""
    p = Proc([f"{run.tools}/httpd", WEB, str(port), str(count), run.web_counter], LOAD, run.tmp + "/httpd.log", nice=0)
    time.sleep(0.5)
    if not p.alive():
        p.stop()
        raise RuntimeError("httpd ended")
    return p


def tcp(run):
    """Queries over connections that are kept open, 64 outstanding over 16 connections, by dnsperf."""
    names = Names(10000, run.tmp)
    table = Table("tcp: connections kept open, saturated", LATENCY[0], ("mean us", "mean_us", 0, True), *LATENCY[3:])
    for rnd, name in each_contender(run, ANSWER, ["hard", "gdnsd", "knot", "nsd", "unbound"]):
        server, port = contenders.start(ANSWER, name, run.tools, run.tmp, SERVER, names=names)
        with server, run.survive(name):
            wait_ready(server, port, names.hosts[-1][0], names.hosts[-1][1])
            argv = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-m", "tcp", "-d", names.queries]
            argv += ["-c", "16", "-q", "64", "-T", "1", "-l", str(round(run.seconds))]
            table.add(name, rnd, measure(server, lambda: parse_dnsperf(run_load(argv))))
    return [table]


def parse_dnsperf(out):
    def value(label):
        m = re.search(rf"{label}:?\s+([\d.]+)", out)
        if not m:
            raise RuntimeError("dnsperf: " + out[-300:])
        return float(m[1])

    if value("Queries completed") < 1:
        raise RuntimeError("dnsperf: nothing was answered")
    return {
        "received": value("Queries completed"),
        "kqps": value("Queries per second") / 1e3,
        "mean_us": value(r"Average Latency \(s\)") * 1e6,
        "lost_pct": 100 * value("Queries lost") / value("Queries sent"),
    }


def startup(run):
    """From exec to the first right answer; memory and idle CPU two seconds after it."""
    columns = [
        ("first right answer ms", "ready_ms", 0, True),
        ("CPU to get there ms", "cpu_ms", 0, True),
        ("PSS MiB", "pss", 1, True),
        ("idle CPU ms/s", "idle", 2, False),
    ]
    tables = []
    for count in (10000, 10):
        names = Names(count, run.tmp)
        tables.append(Table(f"startup: {count:,} names", *columns))
        for rnd, name in each_contender(run, ANSWER, ["hard", "gdnsd", "nsd", "knot", "unbound"]):
            server, port = contenders.start(ANSWER, name, run.tools, run.tmp, set(CPUS), names=names)
            with server, run.survive(name):
                tables[-1].add(name, rnd, settle(run, server, port, *names.hosts[-1][:2]))
    web_port = free_port()
    with web(run, web_port, 10):
        for rnd in range(run.rounds if run.has("hard") else 0):
            s = contenders.Setup(run.tools, run.new_dir(), free_port())
            names = contenders.hard_probed(web_addresses(10), web_port)
            config = contenders.hard_config(s, 'interval = "2s"', names)
            server = Proc([f"{run.tools}/hard", config], set(CPUS), s.dir + "/log")
            with server, run.survive("hard"):
                tables[-1].add("hard, each probed every 2 s", rnd, settle(run, server, s.port, f"n9.{contenders.ZONE}", web_addresses(10)[9]))
    return tables


def settle(run, server, port, name, want):
    """The columns of startup, for a server that has just been started."""
    ready, cpu = wait_ready(server, port, name, want), server.cpu()
    time.sleep(2)
    cpu2, t2 = server.cpu(), time.monotonic()
    time.sleep(5 * run.seconds)
    idle = (server.cpu() - cpu2) / (time.monotonic() - t2)
    return {"ready_ms": ready * 1e3, "cpu_ms": cpu * 1e3, "pss": server.pss_mib(), "idle": idle * 1e3}
