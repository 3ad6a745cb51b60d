// Package config reads har.toml: parse, default, inherit, validate, and say where something is wrong.
//
// Load and Parse report everything at once, in file order, each problem at its key. keys.go and check.go hold the
// tables of all keys, the one source for their types, bounds, defaults and for what is suggested instead
// of an unknown one; har.go has the words of the first har. A value goes through three steps: the TOML
// library makes maps of the text, the key tables make options of the maps (built-in default, then
// [defaults], name, candidate), and the options become the shared, immutable parts of a Config.
//
// A Config belongs to nobody: it never changes, and equal policies, paces and checks within it are one
// value each. The package keeps no state and starts nothing. It is not for what only a running host
// can tell, such as which upstreams resolv.conf names; whoever knows that adds it with Report.Warn.
package config
