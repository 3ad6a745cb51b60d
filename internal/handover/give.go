package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"hard/internal/bug"
	"hard/internal/unixsock"
)

// Instance is a running daemon as a Giver needs it. The calls come one after the other, from one
// goroutine at a time.
type Instance interface {
	// Offer returns duplicates of the sockets, which the caller closes, and what the successor
	// should know. Until Withdraw or Leave nothing of that may change. who is for the log.
	Offer(who string) (files []*os.File, state []byte, err error)
	// Withdraw: the successor has failed; why says how. All is as before Offer.
	Withdraw(why error)
	// Leave: the successor reads from the sockets. It returns when this instance no longer does,
	// and decides nothing any more.
	Leave(who string)
	// Release gives back whatever else the successor needs, and returns when it is free.
	Release()
	// Released: the successor has been told. The process should end.
	Released()
}

const (
	// prepareTime is how long a successor may take from the sockets to serving. It reads its
	// configuration before it asks, so this is for 100,000 names on a slow machine, and the instance
	// can't be reloaded meanwhile.
	prepareTime = time.Minute
	retryListen = 5 * time.Second
)

// Giver waits on a unix socket for a successor.
type Giver struct {
	// immutable
	in   Instance
	log  *slog.Logger
	path string

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // run, and the conversation that stops it from within

	mu sync.Mutex // guards l
	l  *unixsock.Listener
}

// Path is where an instance waits whose control socket is control; empty if it has none.
func Path(control string) string {
	if control == "" {
		return ""
	}
	return control + ".takeover"
}

// Path is where g waits; empty for a nil one.
func (g *Giver) Path() string {
	if g == nil {
		return ""
	}
	return g.path
}

// Listen waits on path until Close. What can't be listened on is logged and tried again.
func Listen(path string, in Instance, log *slog.Logger) *Giver {
	g := &Giver{in: in, log: log, path: path}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.wg.Add(1)
	go g.run()
	return g
}

// Close waits no longer, removes the socket and joins the goroutine: a conversation ends, unless it
// has come to Leave; then it goes on to its end first. A nil Giver has nothing to close.
func (g *Giver) Close() {
	if g == nil {
		return
	}
	g.close()
	g.wg.Wait()
}

func (g *Giver) close() {
	g.cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.l == nil {
		return
	}
	g.l.Close()
	g.l = nil
}

func (g *Giver) run() {
	defer g.wg.Done()
	said := ""
	for g.ctx.Err() == nil {
		l, err := g.listen()
		if err == nil {
			said = ""
			err = g.serve(l)
		}
		if g.ctx.Err() != nil {
			return
		}
		if said != err.Error() {
			said = err.Error()
			g.log.Warn("nobody can take over from this instance, trying again; answers are not affected", "socket", g.path, "error", err)
		}
		select {
		case <-time.After(retryListen):
		case <-g.ctx.Done():
		}
	}
}

// listen binds the socket: only our user and root may connect.
func (g *Giver) listen() (*unixsock.Listener, error) {
	l, err := unixsock.Listen(g.ctx, g.path, 0o600)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.ctx.Err(); err != nil {
		l.Close()
		return nil, err
	}
	g.l = l
	return l, nil
}

// serve talks to one successor after the other, until one has taken over.
func (g *Giver) serve(l *unixsock.Listener) error {
	for {
		u, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		g.hear(newConn(u, ofSuccessor))
	}
}

// hear is talk; a panic in it ends that conversation alone.
func (g *Giver) hear(c *conn) {
	defer bug.Caught(g.log, "a conversation with a successor")
	g.talk(c)
}

// talk is the whole conversation with one successor.
func (g *Giver) talk(c *conn) {
	defer c.close()
	stop := context.AfterFunc(g.ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	who, err := g.meet(c)
	if err == nil {
		err = g.offer(c, who)
	}
	if err != nil {
		g.log.Warn("the sockets were not taken over; this instance goes on", "by", who, "error", err)
		_ = c.send(&message{Refused: err.Error()})
		return
	}
	stop()
	g.in.Leave(who)
	if err := c.send(&message{Left: true}); err != nil {
		g.log.Warn("the successor doesn't listen any more; it has the sockets", "by", who, "error", err)
	}
	g.close() // its path is the successor's now
	g.in.Release()
	_ = c.send(&message{Released: true})
	g.in.Released()
}

// meet finds out who is there, and whether they may.
func (g *Giver) meet(c *conn) (who string, err error) {
	cred, err := peer(c.UnixConn)
	if err != nil {
		return "unknown", err
	}
	who = fmt.Sprintf("uid %d pid %d", cred.Uid, cred.Pid)
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return who, fmt.Errorf("uid %d may not: only uid %d and root", cred.Uid, os.Geteuid())
	}
	m, err := c.receive(time.Now().Add(wordTime))
	if err != nil {
		return who, err
	}
	if m.Hello == nil || m.Hello.Protocol != protocol {
		return who, fmt.Errorf("this instance speaks version %d of the protocol, the successor another one", protocol)
	}
	return who + " version " + m.Hello.Version, nil
}

// offer passes everything on and waits until the successor serves.
func (g *Giver) offer(c *conn, who string) error {
	files, state, err := g.in.Offer(who)
	if err != nil {
		return err
	}
	err = sendAll(c, files, state)
	CloseAll(files)
	if err == nil {
		err = g.awaitServing(c)
	}
	if err != nil {
		g.in.Withdraw(err)
	}
	return err
}

func (g *Giver) awaitServing(c *conn) error {
	until := time.Now().Add(prepareTime)
	m, err := c.receive(until)
	switch {
	case g.ctx.Err() != nil:
		return errors.New("this instance is stopping")
	case err != nil:
		return fmt.Errorf("the successor failed before it served: %w", err)
	case !m.Serving:
		return errors.New("the successor didn't say that it serves")
	}
	return nil
}

func sendAll(c *conn, files []*os.File, state []byte) error {
	for len(files) > 0 {
		n := min(len(files), perMessage)
		m := new(message)
		for _, f := range files[:n] {
			m.Sockets = append(m.Sockets, f.Name())
		}
		if err := c.send(m, files[:n]...); err != nil {
			return err
		}
		files = files[n:]
	}
	return c.send(&message{State: state})
}
