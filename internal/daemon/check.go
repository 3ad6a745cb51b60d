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
	for _, s := range c.Upstream.Servers {
		if s.Kind != config.ServerResolvConf {
			continue
		}
		if _, _, err := resolver.ResolvConfServers(s.Path, c.Listen.DNS); err != nil {
			report.Warn(fmt.Sprintf("no upstream found: %v; local names are served, other queries get SERVFAIL until there is one", err), "upstream", "servers")
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
