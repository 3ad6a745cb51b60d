package config

import (
	"crypto/x509"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
)

// checkBuilder makes Checks of inherited options. Equal ones come out as the same pointer.
type checkBuilder struct {
	l      *loader
	equal  map[string]*Check // by canonical encoding and URL
	caSums map[string]uint64 // content of the files already read; 0 = could not be used
}

// checkLevel is one place where a check's keys stand.
type checkLevel struct {
	path     []string // of the check itself
	isString bool
}

// key is where a key of the check was written.
func (p checkLevel) key(name string) []string {
	if p.isString {
		return p.path
	}
	return join(p.path, name)
}

// scope is the levels that one endpoint's check is inherited from, by level.
type scope [inCandidate + 1]checkLevel

// read takes the check at one level into o, which holds what is inherited.
func (b *checkBuilder) read(at level, path []string, v any, o *checkOptions, s *scope) {
	s[at] = checkLevel{path: path}
	var table map[string]any
	switch v := v.(type) {
	case string:
		s[at].isString = true
		table = map[string]any{"url": v}
	case map[string]any:
		if table = b.l.subtable(path, v); table == nil {
			return
		}
	default:
		b.l.errorf(path, "want a URL in quotes or a table, not %s", describe(v))
		o.broken = true
		return
	}
	before := b.l.errors
	if s[at].isString {
		b.l.report(path, checkKeys.keys[urlKey].set(v, o))
	} else {
		readTable(b.l, path, table, checkKeys, o)
	}
	for n, name := range checkKeyNames {
		if _, ok := table[name]; ok {
			o.from[n] = at
		}
	}
	o.broken = o.broken || b.l.errors > before
	if !o.broken && o.from[urlKey] != builtIn {
		b.conflicts(o, s)
	}
}

// conflicts warns of keys that mean nothing to the kind of check, and refuses those that contradict each other. A key in
// [defaults], or one that is inherited past a URL of another kind, is no conflict: it is for those names that are of its kind.
func (b *checkBuilder) conflicts(o *checkOptions, s *scope) {
	kind := o.target.kind
	for n, name := range checkKeyNames {
		kinds, limited := goesWith[name]
		if !limited || o.from[n] <= inDefaults || o.from[n] < o.from[urlKey] || slices.Contains(kinds, kind) {
			continue
		}
		words := make([]string, len(kinds))
		for n, k := range kinds {
			words[n] = k.String()
		}
		b.l.warnf(s[o.from[n]].key(name), "%s has no effect with url = %s: it is for %s", name, strconv.Quote(o.target.text), strings.Join(words, ", "))
	}
	if o.method == "HEAD" && o.body != "" && kind <= CheckHTTPS {
		b.l.errorf(s[max(o.setBy("method"), o.setBy("body"))].path, `body does not go with method = "HEAD": such a reply has none`)
		o.broken = true
	}
	if !o.verify && o.caFile != "" && (kind == CheckHTTPS || kind == CheckTLS) {
		b.l.warnf(s[max(o.setBy("verify"), o.setBy("ca_file"))].path, "ca_file has no effect while verify = false")
	}
}

// setBy returns the level that a key comes from.
func (o *checkOptions) setBy(key string) level { return o.from[slices.Index(checkKeyNames[:], key)] }

// dependsOnName reports whether two names with these options have different checks.
func (o *checkOptions) dependsOnName() bool {
	return o.target.host == "" && (o.target.kind <= CheckHTTPS || o.target.kind == CheckTLS)
}

// lacksPort reports whether nobody has said yet which port to connect to. A more specific level still can.
func (o *checkOptions) lacksPort() bool {
	return portOf(o) == 0 && (o.target.kind == CheckTCP || o.target.kind == CheckTLS)
}

// build makes the check of a name, or returns nil where an error was reported. path is where to
// complain of what only this name lacks.
func (b *checkBuilder) build(o *checkOptions, s *scope, name string, path []string) *Check {
	if o.broken {
		return nil
	}
	if o.from[urlKey] == builtIn {
		b.l.errorf(path, "no check, neither here nor in [defaults]")
		return nil
	}
	t := &o.target
	at := s[o.from[urlKey]].key("url")
	if t.host == "" && t.kind <= CheckTLS && strings.HasPrefix(name, "*.") {
		b.l.errorf(path, "a wildcard needs a host in its check's URL, %s has none", strconv.Quote(t.text))
		return nil
	}
	c := Check{Kind: t.kind, URL: t.text}
	host := t.host
	if host == "" {
		host = name
	}
	switch t.kind {
	case CheckHTTP, CheckHTTPS:
		c.Host, c.Path, c.Method, c.Headers, c.Status = t.hostPort(host), t.path, o.method, o.headers, o.status
		c.Body, c.Redirects = o.body, o.redirects
	case CheckTCP, CheckTLS:
		c.Host, c.Send, c.Expect = t.host, o.send, o.expect
	case CheckDNS:
		c.DNSName, c.DNSType = t.dnsName, t.dnsType
	case CheckExec:
		c.Command, c.Args = t.path, o.args
	}
	if t.kind == CheckTLS {
		c.Host = host
	}
	if t.kind != CheckStatic {
		c.Source, c.Retries = o.source, o.retries
	}
	c.Port = portOf(o)
	if o.lacksPort() {
		b.l.errorf(at, "a %s check needs a port, in its URL or as port", t.kind).suggest(`"` + strings.TrimSuffix(t.text, ":") + `:443"`)
		return nil
	}
	if t.kind == CheckHTTPS || t.kind == CheckTLS {
		c.Insecure, c.ServerName, c.CAFile = !o.verify, o.serverName, o.caFile
		if c.ServerName == "" {
			c.ServerName = host
		}
	}
	if t.kind == CheckExec {
		b.l.executable(at, c.Command)
	}
	return b.share(&c, s[o.setBy("ca_file")].key("ca_file"))
}

// portOf is the port that is dialled: the key's, the URL's, the scheme's, or 0.
func portOf(o *checkOptions) uint16 {
	switch {
	case o.port != 0 && o.target.kind != CheckStatic:
		return o.port
	case o.target.hasPort:
		return o.target.port
	}
	return [...]uint16{CheckHTTP: 80, CheckHTTPS: 443, CheckDNS: portDNS, CheckStatic: 0}[o.target.kind]
}

// share returns the one check that is equal to c.
func (b *checkBuilder) share(c *Check, caPath []string) *Check {
	sum := b.caSum(c.CAFile, caPath)
	code := c.encode(sum)
	id := string(code) + c.URL
	if known, ok := b.equal[id]; ok {
		return known
	}
	h := fnv.New64a()
	h.Write(code)
	c.Fingerprint = h.Sum64()
	b.equal[id] = c
	return c
}

// encode writes everything that changes what a probe finds, each part with its length, so that no two
// checks have the same code. The URL as written is not part of it: its meaning is.
func (c *Check) encode(caSum uint64) []byte {
	code := make([]byte, 0, 160)
	str := func(s string) {
		code = binary.AppendUvarint(code, uint64(len(s)))
		code = append(code, s...)
	}
	num := func(ns ...int) {
		for _, n := range ns {
			code = binary.AppendVarint(code, int64(n))
		}
	}
	insecure := 0
	if c.Insecure {
		insecure = 1
	}
	num(int(c.Kind), int(c.Port), int(c.DNSType), c.Retries, c.Redirects, insecure)
	if c.Kind != CheckTCP { // where the host has no effect
		str(c.Host)
	}
	for _, s := range []string{c.Path, c.Method, c.Body, c.Send, c.Expect, c.ServerName, c.CAFile, c.Command, c.DNSName} {
		str(s)
	}
	num(len(c.Headers))
	for _, h := range c.Headers {
		str(h.Name)
		str(h.Value)
	}
	num(len(c.Status))
	for _, s := range c.Status {
		num(s.Low, s.High)
	}
	num(len(c.Args))
	for _, a := range c.Args {
		str(a)
	}
	if c.Source.IsValid() {
		str(c.Source.String())
	}
	return binary.BigEndian.AppendUint64(code, caSum)
}

// caSum reads a file of certificates and returns a hash of its content. Where no files may be read it is 0.
func (b *checkBuilder) caSum(file string, path []string) uint64 {
	if file == "" || b.l.host == nil {
		return 0
	}
	if sum, ok := b.caSums[file]; ok {
		return sum
	}
	data, err := b.l.host.readFile(file)
	if err != nil {
		b.l.errorf(path, "cannot be read: %v", err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(data) {
		b.l.errorf(path, "%s holds no certificate in PEM form", strconv.Quote(file))
	}
	h := fnv.New64a()
	h.Write(data)
	b.caSums[file] = h.Sum64()
	return b.caSums[file]
}
