package resolver

import (
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// queryRecord is a record of the query log.
type queryRecord struct {
	Msg, Client, Proto, Name, Type, Source, Rcode string
	Microseconds                                  *int64
}

// queries are the records of l's query log.
func (l *logged) queries(t *testing.T) []queryRecord {
	t.Helper()
	var out []queryRecord
	for line := range strings.Lines(l.String()) {
		var r queryRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if r.Msg == "query" {
			out = append(out, r)
		}
	}
	return out
}

// One record for each query, when its reply is given, whoever gives it.
func TestQueryLog(t *testing.T) {
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		if q[13] == 'f' {
			return withRcode(dns.RcodeServerFailure)(q, tcp)
		}
		return answerA(q, tcp)
	})
	var log logged
	r := newServer(t, Options{Log: slog.New(slog.NewJSONHandler(&log, nil)), LogQuery: true})
	o := optionsTo(u)
	o.Cache.Enabled = true
	if err := r.SetUpstreams(o); err != nil {
		t.Fatal(err)
	}
	r.Start()
	badVersion := query(tName, dns.TypeA)
	badVersion.SetEdns0(1232, false)
	badVersion.IsEdns0().SetVersion(1)
	notify := query("x.example.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	for _, proto := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			m    *dns.Msg
			want queryRecord
		}{
			{query("API.example.com.", dns.TypeA), queryRecord{Name: "API.example.com", Type: "A", Source: "local", Rcode: "NOERROR"}},
			{query(tName, dns.TypeTXT), queryRecord{Name: "api.example.com", Type: "TXT", Source: "forward", Rcode: "NOERROR"}},
			{query(proto+".example.", 65280), queryRecord{Name: proto + ".example", Type: "TYPE65280", Source: "forward", Rcode: "NOERROR"}},
			{query(proto+".example.", 65280), queryRecord{Name: proto + ".example", Type: "TYPE65280", Source: "cache", Rcode: "NOERROR"}},
			{query("fails.example.", dns.TypeA), queryRecord{Name: "fails.example", Type: "A", Source: "forward", Rcode: "SERVFAIL"}},
			{query(`a\"\010\.b.invalid.`, dns.TypeA), queryRecord{Name: `a\"\010\.b.invalid`, Type: "A", Source: "special", Rcode: "NXDOMAIN"}},
			{badVersion, queryRecord{Name: "api.example.com", Type: "A", Source: "error", Rcode: "BADVERS"}},
			{notify, queryRecord{Name: "?", Type: "?", Source: "error", Rcode: "NOTIMP"}},
		} {
			client := queryFrom(t, proto, r, c.m)
			got := log.queries(t)
			log.reset()
			if len(got) != 1 {
				t.Fatalf("%s %v: %d records", proto, c.m.Question, len(got))
			}
			g := got[0]
			if g.Microseconds == nil || *g.Microseconds < 0 || *g.Microseconds > 5e6 {
				t.Errorf("%s %s: microseconds %v", proto, g.Name, g.Microseconds)
			}
			c.want.Msg, c.want.Client, c.want.Proto, c.want.Microseconds = "query", client, proto, g.Microseconds
			if g != c.want {
				t.Errorf("got  %+v\nwant %+v", g, c.want)
			}
		}
	}
}

// queryFrom sends m to r, waits for the reply and returns where it was sent from.
func queryFrom(t *testing.T, proto string, r *Resolver, m *dns.Msg) (client string) {
	t.Helper()
	nc, err := net.Dial(proto, r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, _, err := new(dns.Client).ExchangeWithConn(m, &dns.Conn{Conn: nc}); err != nil {
		t.Fatalf("%s %v: %v", proto, m.Question, err)
	}
	return nc.LocalAddr().String()
}

// Held queries are logged when they are answered, with the time that they
// waited; without upstreams the record says who failed; off is off.
func TestQueryLogHeldAndOff(t *testing.T) {
	var log logged
	r := serve(t, Options{Log: slog.New(slog.NewJSONHandler(&log, nil)), LogQuery: true})
	for _, proto := range []string{"udp", "tcp"} {
		log.reset()
		done := make(chan struct{})
		go func() {
			defer close(done)
			queryFrom(t, proto, r, query(tHold, dns.TypeA))
		}()
		eventually(t, "the query is held", func() bool { return r.held.len() == 1 })
		if got := log.queries(t); len(got) != 0 {
			t.Errorf("%s: logged before it was answered: %+v", proto, got)
		}
		specs := testSpecs()
		specs[1].Sets = specs[0].Sets
		r.Publish(buildTable(t, specs))
		<-done
		got := log.queries(t)
		if len(got) != 1 || got[0].Source != "local" || got[0].Rcode != "NOERROR" || got[0].Proto != proto || *got[0].Microseconds <= 0 {
			t.Errorf("%s, held: %+v", proto, got)
		}
		log.reset()
		queryFrom(t, proto, r, query("x.example.", dns.TypeA))
		if got := log.queries(t); len(got) != 1 || got[0].Source != "error" || got[0].Rcode != "SERVFAIL" {
			t.Errorf("%s, no upstreams: %+v", proto, got)
		}
		r.Publish(buildTable(t, testSpecs()))
	}
	log.reset()
	if _, err := r.Ask(t.Context(), pack(t, query(tName, dns.TypeA))); err != nil {
		t.Fatal(err)
	}
	if got := log.queries(t); len(got) != 1 || got[0].Client != "self" {
		t.Errorf("our own: %+v", got)
	}
	log.reset()
	r.SetLogQueries(false)
	for _, proto := range []string{"udp", "tcp"} {
		queryFrom(t, proto, r, query(tName, dns.TypeA))
		queryFrom(t, proto, r, query("x.example.", dns.TypeA))
	}
	if got := log.queries(t); len(got) != 0 {
		t.Errorf("off: %+v", got)
	}
}
