package config

// har's own keys (otterley/har, 2011) and what they are called here. Its file is not TOML, but
// what people carry over are its words.
var oldKeys = map[string]string{
	"nameservers":         "[upstream].servers",
	"resolver_timeout":    "[upstream].attempt_timeout",
	"dns_bind_interfaces": "[listen].dns",
	"dns_listen_port":     "[listen].dns, each entry with its port",
	"data_file":           "[store].path",
	"check_frequency":     "interval",
	"check_timeout":       "timeout",
	"check_method":        "the scheme of check, e.g. \"http://\"",
	"check_address":       "check",
	"selection_method":    "select",
	"rtt_mode":            "latency",
	"failure_mode":        "on_all_down",
	"group_rtt_threshold": "group_within",
	"max_rtt":             "max_latency",
}

// oldValues are har's words for values, by the key that has them now.
var oldValues = map[string]map[string]string{
	"select":      {"best_rtt": "best", "group_rtt_rr": "group"},
	"on_all_down": {"none": "forward"},
}
