package resolver

import (
	"log/slog"
	"net/netip"

	"hard/internal/answer"
	"hard/internal/wire"
)

// STUB: what the forwarder needs of the listener half, until listen.go defines
// it. Listener engineer: delete this file (and asker_stub_test.go's body) and
// keep these names: asker.reply/tcp/transport/peer, request, outMessage,
// sendReplies (batch: group by listener, sendmmsg), Resolver.fwd, Resolver.log.
type asker struct {
	fn  func([]byte)
	isT bool
	p   netip.AddrPort
}

func (a asker) reply(m []byte)            { a.fn(m) }
func (a asker) tcp() bool                 { return a.isT }
func (a asker) transport() wire.Transport { return wire.Transport{TCP: a.isT} }
func (a asker) peer() netip.AddrPort      { return a.p }

type request struct {
	msg   []byte
	q     *wire.Query
	entry *answer.Entry
	from  asker
}

type outMessage struct {
	from asker
	msg  []byte
}

// sendReplies sends a batch of replies; nothing of out is kept after the call.
func sendReplies(out []outMessage) {
	for _, o := range out {
		o.from.reply(append([]byte(nil), o.msg...))
	}
}

// Resolver is the listener half's.
type Resolver struct {
	fwd *forwarder
	log *slog.Logger
}
