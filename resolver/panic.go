package resolver

import (
	"fmt"
	"hash/fnv"
	"log/slog"

	"hard/internal/bug"
	"hard/internal/wire"
)

// A panic while a query is handled is a bug of ours. It ends that query, with
// SERVFAIL where its header can be read, and nothing else (fault 20). What was
// being done is in an unknown state, so the reply is made of the client's own
// bytes alone.

// bugOption tells a client that asks with EDNS why it gets SERVFAIL.
var bugOption = wire.EDEOption(wire.EDEOther, "internal error")

// afterPanic makes the SERVFAIL to the query buf[:n] in place and returns its
// size; 0: it is none, or too short to tell. len(buf) is at least 512.
func afterPanic(buf []byte, n int, tr wire.Transport) (size int) {
	if n < wire.HeaderLen {
		return 0
	}
	defer func() {
		if recover() != nil { // it was the parser
			size = bareServFail(buf)
		}
	}()
	var q wire.Query
	if q.Parse(buf[:n]) == wire.VerdictDrop {
		return 0
	}
	return q.Error(buf, wire.ServFail, bugOption, tr)
}

// bareServFail is a header alone, made without a look at what follows it.
func bareServFail(buf []byte) int {
	a := wire.Asked{ID: uint16(buf[0])<<8 | uint16(buf[1]), Flags: uint16(buf[2])<<8 | uint16(buf[3]), Size: wire.MinUDP}
	if a.Flags&wire.FlagQR != 0 {
		return 0
	}
	return a.Error(buf, wire.ServFail, nil, wire.Transport{})
}

// notePanic is bug.Note, and must be called as that: by the deferred function
// that has recovered v. A packet (nil: there is none) is logged by its hash, as
// it may be private, so that equal ones can be told.
func notePanic(log *slog.Logger, v any, what string, packet []byte) {
	var args []any
	if packet != nil {
		args = []any{"packet", packetHash(packet), "size", len(packet)}
	}
	bug.Note(log, v, what, args...)
}

// packetHash stands for a packet in the log.
func packetHash(msg []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(msg)
	return fmt.Sprintf("%016x", h.Sum64())
}
