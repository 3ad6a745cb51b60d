package prober

import (
	"bytes"
	"fmt"
	"io"
	"net"

	"hard/internal/config"
	"hard/internal/rank"
)

// checkStream runs a tcp or tls check: connect, shake hands, and where the check says so send
// and expect something.
func checkStream(n *network, pr *probe) {
	c, err := openStream(n, pr)
	if err != nil {
		pr.fail(err)
		return
	}
	defer closeRaw(c)
	if pr.check.Expect == "" {
		pr.end(rank.OK, 0, "")
		return
	}
	expect(pr, c)
}

// openStream connects and sends.
func openStream(n *network, pr *probe) (net.Conn, error) {
	send := []byte(pr.check.Send)
	if pr.trace != nil {
		pr.tracef("*", "connect to %v port %d", pr.addr, port(pr.check))
	}
	c, err := n.dialAndSend(pr, port(pr.check), send, pr.check.Kind != config.CheckTCP)
	if err == nil && pr.trace != nil && len(send) > 0 {
		pr.tracef(">", "%q", send)
	}
	return c, err
}

// expect reads until the wanted text has come. Something else that came is the verdict Body, no
// matter how the wait ended: the peer is there and says the wrong thing.
func expect(pr *probe, c net.Conn) {
	buf := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buf)
	buf.Reset()
	found, err := readUntil(&firstByteReader{c, pr}, buf, []byte(pr.check.Expect))
	if pr.trace != nil && buf.Len() > 0 {
		pr.tracef("<", "%.200q", pr.hide(buf.String()))
	}
	switch outcome, detail := rank.OK, ""; {
	case found:
		pr.end(rank.OK, 0, "")
	case buf.Len() > 0 && pr.Err() == nil:
		pr.end(rank.Body, 0, fmt.Sprintf("expected %q, got %.80q", pr.check.Expect, pr.hide(buf.String())))
	default:
		outcome, detail = classify(err, pr)
		pr.end(outcome, 0, detail)
	}
}

// firstByteReader notes when the first byte of a reply came.
type firstByteReader struct {
	r  io.Reader
	pr *probe
}

func (f *firstByteReader) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if n > 0 {
		f.pr.firstByte()
	}
	return n, err
}
