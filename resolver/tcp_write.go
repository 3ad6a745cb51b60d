package resolver

import (
	"slices"
	"syscall"
	"time"

	"hard/internal/mmsg"
	"hard/internal/wire"
)

// write sends w.out, or queues what the socket has no room for.
func (c *tcpConn) write(w *tcpWorker, fd int) {
	b := w.out
	w.out = w.out[:0]
	if len(b) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.broken = true
		return
	}
	n := 0
	if !c.writing {
		var errno syscall.Errno
		if n, errno = mmsg.Write(fd, b); isGone(errno) {
			c.broken = true
			return
		}
	}
	if n < len(b) {
		c.queueLocked(b[n:])
	}
}

// queueLocked leaves b to the writer, which is started if there is none.
func (c *tcpConn) queueLocked(b []byte) {
	if int(c.unsent.Load())+len(b) > c.s.limits.maximum {
		c.closeLocked()
		return
	}
	c.out = append(c.out, b...)
	c.unsent.Add(int32(len(b)))
	if !c.writing {
		c.writing = true
		c.s.wg.Add(1) // never from 0: run, or the forwarder before it is stopped, is still there
		go c.runWriter()
	}
}

// runWriter writes to a client that is slower than its replies come, until it
// has taken them all.
func (c *tcpConn) runWriter() {
	defer c.s.wg.Done()
	for {
		c.mu.Lock()
		b := c.out
		c.out = nil
		if len(b) == 0 || c.closed {
			c.writing = false
			c.mu.Unlock()
			c.signal()
			return
		}
		c.mu.Unlock()
		for len(b) > 0 && c.writePart(b[:min(len(b), writeSize)]) {
			b = b[min(len(b), writeSize):]
		}
	}
}

// writeSize is how many bytes a client must take within one write timeout.
const writeSize = 16 << 10

// writePart writes a part of what the client has not taken, or closes c.
func (c *tcpConn) writePart(b []byte) bool {
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.s.limits.write))
	if _, err := c.conn.Write(b); err != nil {
		c.close()
		return false
	}
	c.stir()
	c.unsent.Add(int32(-len(b)))
	c.signal()
	return true
}

// later counts queries whose reply comes later.
func (c *tcpConn) later(n int32) { c.inflight.Add(n) }

// writeReply writes the reply to a query that was counted by later.
func (c *tcpConn) writeReply(from asker, s source, msg []byte) {
	defer c.signal()
	defer c.inflight.Add(-1)
	if len(msg) == 0 || len(msg) > wire.MaxTCP {
		return
	}
	c.s.r.noteTCP(&from, s, msg)
	frame := slices.Concat([]byte{byte(len(msg) >> 8), byte(len(msg))}, msg)
	c.stir()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	n := 0
	if !c.writing {
		var errno syscall.Errno
		err := c.raw.Control(func(fd uintptr) { n, errno = mmsg.Write(int(fd), frame) })
		if err != nil || isGone(errno) {
			c.closeLocked()
			return
		}
	}
	if n < len(frame) {
		c.queueLocked(frame[n:])
	}
}

// isGone reports whether an error of a stream means that the client has left.
func isGone(errno syscall.Errno) bool {
	return errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINTR
}
