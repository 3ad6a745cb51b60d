package resolver

import (
	"net/netip"
	"sync"
	"time"

	"hard/internal/answer"
	"hard/internal/mmsg"
	"hard/internal/wire"
)

// asker is where a query came from and how its reply goes back. It is a value,
// to be copied freely and kept as long as wanted.
type asker struct {
	to   replier
	addr mmsg.Addr
	at   int64 // when the query came, in nanoseconds of Resolver.sinceStart; 0 = not known
}

// replier is one way for replies: *udpListener, *tcpConn or *inProcess. Its
// methods may be called from any goroutine, do not block, and drop the reply
// if the client is gone. msg is not kept; an empty one means that there will be
// no reply.
type replier interface {
	writeReply(from asker, source source, msg []byte)
	transport() wire.Transport
	later(n int32) // counts queries whose reply comes by writeReply
}

// replyAs sends the reply, which comes from s (metrics).
func (a asker) replyAs(s source, msg []byte) { a.to.writeReply(a, s, msg) }

func (a asker) transport() wire.Transport { return a.to.transport() }

func (a asker) tcp() bool { return a.to.transport().TCP }

// peer is the client's address; the zero AddrPort for a query of our own.
func (a asker) peer() netip.AddrPort { return a.addr.AddrPort() }

// request is a query on its way to the forwarder: valid only during the call.
type request struct {
	msg   []byte
	q     *wire.Query
	entry *answer.Entry // nil when the name is not ours
	from  asker
}

// outMessage is one reply of a batch. The zero source is sourceForward.
type outMessage struct {
	from   asker
	msg    []byte
	source source
}

// sendReplies sends replies to any clients, those over UDP with as few system
// calls as there are runs of one listen address. Nothing of out is kept.
func sendReplies(out []outMessage) {
	for i := 0; i < len(out); {
		l, ok := out[i].from.to.(*udpListener)
		if !ok {
			out[i].from.replyAs(out[i].source, out[i].msg)
			i++
			continue
		}
		to := i + 1
		for to < len(out) && to-i < udpBatch && l.sendsFor(out[to].from.to) {
			to++
		}
		l.writeReplies(out[i:to])
		i = to
	}
}

// inProcess is the replier of Resolver.Ask.
type inProcess struct {
	r       *Resolver
	replies chan []byte // has room for one
}

func (c *inProcess) writeReply(from asker, s source, msg []byte) {
	if len(msg) == 0 {
		return
	}
	c.r.noteTCP(&from, s, msg)
	select {
	case c.replies <- append([]byte(nil), msg...):
	default:
	}
}

func (c *inProcess) transport() wire.Transport { return wire.Transport{TCP: true} }

func (c *inProcess) later(int32) {}

// endpoint is one address of [listen].dns: some UDP sockets and a TCP socket
// with the same port. Immutable but for retire.
type endpoint struct {
	want  netip.AddrPort // as configured, perhaps with port 0
	addr  netip.AddrPort // as bound
	udp   []*udpListener
	tcp   *tcpListener
	given map[any]bool   // their connections that somebody else had bound for us
	wg    sync.WaitGroup // their goroutines

	mu     sync.Mutex  // guards the rest
	retire *time.Timer // closes the sockets of an address that was given up
	closed bool
}

func (e *endpoint) start() {
	for _, l := range e.udp {
		e.wg.Add(1)
		go l.run()
	}
	e.wg.Add(1)
	e.tcp.accepting.Add(1)
	go e.tcp.run()
}

// stopReading takes no more queries and joins the goroutines that did. Replies
// can still be sent.
func (e *endpoint) stopReading() {
	for _, l := range e.udp {
		l.stopReading()
	}
	e.tcp.ln.Close()
	e.wg.Wait()
}

// close closes the sockets. It may be called again.
func (e *endpoint) close() {
	e.mu.Lock()
	e.closed = true
	if e.retire != nil {
		e.retire.Stop()
	}
	e.mu.Unlock()
	for _, l := range e.udp {
		l.close()
	}
	e.tcp.ln.Close()
}

func (e *endpoint) setRetire(t *time.Timer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		t.Stop()
	}
	e.retire = t
}
