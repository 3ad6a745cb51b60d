"""Suites on queries that are passed on: forward, upstream-failover."""

import itertools
import signal
import time

import contenders
from answers import LATENCY, each_contender, qload
from contenders import FORWARD, UPSTREAM_ANSWER
from lib import LOAD, SERVER, Proc, counter, free_port, parse_qload, read, run_load, wait_ready
from table import Table

READY = "ready.fwd.test"
FIRST, SECOND = "127.0.0.2", "127.0.0.3"


def upstream(run, addr, port):
    """An upstream that answers everything at once, beside the load on its processor."""
    return Proc([f"{run.tools}/udpd", "answer", addr, str(port), f"{run.tmp}/count-{addr}-{port}"], LOAD, run.tmp + "/udpd.log")


def forward(run):
    """Unique names, so that nothing is cached: saturated, and at 5,000 queries a second."""
    saturated = Table("forward: unique names, saturated", *LATENCY)
    steady = Table("forward: the same at 5,000 queries a second", *LATENCY)
    up_port = free_port()
    with upstream(run, FIRST, up_port) as up:
        for rnd, name in each_contender(run, FORWARD, ["hard", "dnsdist", "unbound"]):
            server, port = contenders.start(FORWARD, name, run.tools, run.tmp, SERVER, upstreams=[f"{FIRST}:{up_port}"])
            with server, run.survive(name):
                wait_ready(server, port, READY, UPSTREAM_ANSWER)
                run_load([f"{run.tools}/qload", "-p", str(port), "-u", "fwd.test", "-q", "16", "-l", "0.3"])
                saturated.add(name, rnd, qload(run, port, "-u", "fwd.test", "-q", "64", server=server, helpers=[up]))
                steady.add(name, rnd, qload(run, port, "-u", "fwd.test", "-Q", "5000", server=server, helpers=[up]))
    return [saturated, steady]


def upstream_failover(run):
    """The first of two upstreams is killed (refuses) or stopped (hangs) under 100 unique queries a second."""
    columns = [
        ("queries", "sent", 0, False),
        ("lost", "lost", 0, False),
        ("errors", "errors", 0, False),
        ("over 100 ms", "slow", 0, False),
        ("worst ms", "worst_ms", 1, False),
        ("upstream packets/query, quiet", "packets", 2, False),
    ]
    tables = {how: Table(f"upstream-failover: one of two upstreams {how}", *columns) for how in ("killed", "stopped")}
    for (rnd, name), how in itertools.product(each_contender(run, FORWARD, ["hard", "dnsdist", "unbound"]), tables):
        up_port = free_port()
        with upstream(run, FIRST, up_port) as first, upstream(run, SECOND, up_port):
            both = [f"{FIRST}:{up_port}", f"{SECOND}:{up_port}"]
            server, port = contenders.start(FORWARD, name, run.tools, run.tmp, SERVER, upstreams=both)
            with server, run.survive(name):
                wait_ready(server, port, READY, UPSTREAM_ANSWER)
                load = [f"{run.tools}/qload", "-p", str(port), "-u", "fwd.test", "-Q", "100", "-t", "5000", "-l"]
                packets = lambda: sum(counter(f"{run.tmp}/count-{a}-{up_port}") for a in (FIRST, SECOND))
                run_load(load + ["1"])
                before = packets()
                quiet = parse_qload(run_load(load + ["3"]))
                per_query = (packets() - before) / quiet["sent"]
                out = f"{server.log}.load"
                with Proc(load + [str(4 if run.quick else 15)], LOAD, out) as gen:
                    time.sleep(0.1)
                    first.signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
                    gen.popen.wait(30)
                v = parse_qload(read(out))
                v |= {"errors": v["received"] - v["ok"], "worst_ms": v["worst_us"] / 1e3, "packets": per_query}
                tables[how].add(name, rnd, v)
    list(tables.values())[-1].notes = ["Lost: no answer within 5 s. Ten queries or so of each run are asked before the upstream dies."]
    return list(tables.values())
