package daemon

import (
	"fmt"
	"io"
	"log/slog"

	"hard/internal/config"
	"hard/resolver"
)

// Check is hard -check: it reads a configuration, writes all that is to be said about it to w,
// and returns the exit code: 0 for a good file, 1 for one with errors or, when strict, warnings.
// It touches no port and no database.
func Check(file string, strict, asJSON bool, w io.Writer) int {
	return config.CheckFile(file, strict, asJSON, w, warnUpstreams)
}

// warnUpstreams says so where resolv.conf names nobody but ourselves: local names would be
// served, everything else would fail.
func warnUpstreams(c *config.Config, report *config.Report) {
	warnServers(c, report, c.Upstream.Servers, "local names are served, other queries", "upstream", "servers")
	for i := range c.Routes {
		r := &c.Routes[i]
		warnServers(c, report, r.Servers, "queries below "+r.Suffix, "route", r.Suffix, "servers")
	}
}

// warnServers looks at the resolv.conf entries of one list; who are those that depend on it.
func warnServers(c *config.Config, report *config.Report, servers []config.Server, who string, path ...string) {
	var failed []error
	for _, s := range servers {
		if s.Kind != config.ServerResolvConf {
			continue
		}
		if _, _, err := resolver.ResolvConfServers(s.Path, c.Listen.DNS); err != nil {
			failed = append(failed, err)
		}
	}
	for _, err := range failed {
		if len(failed) == len(servers) {
			report.Warn(fmt.Sprintf("no upstream found: %v; %s get SERVFAIL until there is one", err, who), path...)
		} else {
			report.Warn(fmt.Sprintf("%v: only the other servers of the list are asked until there is one", err), path...)
		}
	}
}

// LogReport logs every problem of a configuration.
func LogReport(log *slog.Logger, report config.Report) {
	for _, p := range report.Problems {
		if p.Severity == config.Error {
			log.Error(report.Text(p))
		} else {
			log.Warn(report.Text(p))
		}
	}
}
