package resolver

import (
	"context"
	"encoding/binary"
	"log/slog"
	"strconv"

	"github.com/miekg/dns"

	"hard/internal/wire"
)

// logReply writes the query log's record ([log].queries) of one query, from
// its reply, just before that is sent: so there is one record for each query
// that gets a reply, whoever gives it, and none for one that gets none. It is
// called only while the log is on, which listeners look up once per batch.
//
// What a client can choose is escaped: its name by the rules of zone files, and
// an unknown type is TYPEn (RFC 3597 section 5).
func (r *Resolver) logReply(from *asker, s source, msg []byte) {
	ctx := context.Background()
	if len(msg) < wire.HeaderLen || !r.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	name, qtype := "?", "?" // what could not be parsed is not repeated in the reply
	if end, ok := wire.SkipName(msg, wire.HeaderLen); ok && end+4 <= len(msg) && msg[5] == 1 {
		name = string(wire.AppendText(nil, msg[wire.HeaderLen:end]))
		qtype = dns.Type(binary.BigEndian.Uint16(msg[end:])).String()
	}
	client, proto := "self", "udp"
	if p := from.peer(); p.IsValid() {
		client = p.String()
	}
	if from.tcp() {
		proto = "tcp"
	}
	r.log.LogAttrs(ctx, slog.LevelInfo, "query", slog.String("client", client), slog.String("proto", proto),
		slog.String("name", name), slog.String("type", qtype), slog.String("source", sourceNames[s]),
		slog.String("rcode", rcodeText(msg)), slog.Int64("microseconds", r.took(from).Microseconds()))
}

// noteTCP counts and logs a reply over TCP that comes later than its query was
// served.
func (r *Resolver) noteTCP(from *asker, s source, msg []byte) {
	r.shared[1].noteReply(s, msg, r.took(from))
	if r.logQuery.Load() {
		r.logReply(from, s, msg)
	}
}

// rcodeText is the mnemonic of a reply's response code, the extended part of an
// OPT included.
func rcodeText(msg []byte) string {
	var rep wire.Reply
	rcode := int(msg[3] & 0x0f)
	if rep.Parse(msg) {
		rcode = int(rep.Rcode)
	}
	if rcode == dns.RcodeBadVers { // 16 is TSIG's BADSIG too, which is never seen here
		return "BADVERS"
	}
	if s := dns.RcodeToString[rcode]; s != "" {
		return s
	}
	return "RCODE" + strconv.Itoa(rcode)
}
