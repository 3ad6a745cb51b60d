// Package handover lets a process begin where another one ends, without a moment in which nobody
// has the listening sockets: they are passed on as descriptors, with all that waits in them.
//
// There are three ways. A service manager binds them (systemd.go: socket activation), or keeps
// duplicates of ours while we are not running (the same file: systemd's store), or a running
// instance gives them to its successor over a unix socket (give.go and take.go).
//
// The package passes descriptors and words on. It opens no listening socket but its own, knows
// nothing of DNS, and decides nothing: what is passed on and when a process stops is the caller's.
package handover

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The conversation between a running instance and its successor, as JSON messages, descriptors
// attached:
//
//	successor               running instance
//	hello            ->
//	                 <-     sockets (several), then state: it still serves, and goes on if the successor goes
//	serving          ->     the successor reads from the sockets
//	                 <-     left: the instance doesn't any more
//	                 <-     released: the database and the other sockets are free, too
//	                        the instance ends
//
// refused ends it at any time before left.
type message struct {
	Hello    *hello          `json:"hello,omitempty"`
	Sockets  []string        `json:"sockets,omitempty"` // the names of the descriptors that come with it
	State    json.RawMessage `json:"state,omitempty"`
	Serving  bool            `json:"serving,omitempty"`
	Left     bool            `json:"left,omitempty"`
	Released bool            `json:"released,omitempty"`
	Refused  string          `json:"refused,omitempty"` // why
}

// hello is who wants to take over.
type hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
	PID      int    `json:"pid"`
}

const (
	// protocol is raised when an older instance would misunderstand.
	protocol = 1
	// perMessage is how many descriptors go with one message; the kernel allows 253.
	perMessage = 100
	// wordTime bounds the exchange of a message that nobody has to think about.
	wordTime = 10 * time.Second
)

// limits are how much of the other end is listened to in one conversation.
type limits struct{ octets, files int }

var (
	// ofSuccessor: two short messages.
	ofSuccessor = limits{octets: 64 << 10}
	// ofInstance: a state of some hundred octets for each name, and a few sockets for each address.
	ofInstance = limits{octets: 512 << 20, files: 4096}
)

// conn is one end of the conversation. Its reader gathers the descriptors that come with the bytes.
type conn struct {
	*net.UnixConn
	dec   *json.Decoder
	left  limits
	bad   error      // what is wrong with the descriptors that came
	files []*os.File // received, not taken yet
}

func newConn(u *net.UnixConn, of limits) *conn {
	c := &conn{UnixConn: u, left: of}
	c.dec = json.NewDecoder(c)
	return c
}

// Read is io.Reader's, for the decoder. Descriptors come out close-on-exec.
func (c *conn) Read(b []byte) (int, error) {
	if c.left.octets == 0 {
		return 0, errors.New("the other end says too much")
	}
	b = b[:min(len(b), c.left.octets)]
	oob := make([]byte, unix.CmsgSpace(4*perMessage))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if err == nil && oobn > 0 {
		c.bad = c.gather(oob[:oobn])
	}
	if err == nil && c.bad == nil && flags&unix.MSG_CTRUNC != 0 {
		c.bad = errors.New("descriptors were lost on the way: no more may be open here")
	}
	if c.bad != nil { // not told by err alone: the decoder may look at the octets first
		err = c.bad
	}
	if err == nil && n == 0 && len(b) > 0 {
		err = io.EOF
	}
	c.left.octets -= n
	return n, err
}

func (c *conn) gather(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return os.NewSyscallError("recvmsg", err)
		}
		for _, fd := range fds {
			c.files = append(c.files, os.NewFile(uintptr(fd), ""))
		}
		if c.left.files -= len(fds); c.left.files < 0 {
			return errors.New("the other end sends too many descriptors")
		}
	}
	return nil
}

// send sends one message, with descriptors. It waits no longer than wordTime.
func (c *conn) send(m *message, files ...*os.File) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(wordTime)); err != nil {
		return err
	}
	text = append(text, '\n')
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		n, _, err := c.WriteMsgUnix(text, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		text = text[n:]
	}
	_, err = c.Write(text)
	return err
}

// receive waits for the next message, until the deadline; the zero one is none.
func (c *conn) receive(until time.Time) (*message, error) {
	if err := c.SetReadDeadline(until); err != nil {
		return nil, err
	}
	m := new(message)
	if err := c.dec.Decode(m); c.bad != nil || err != nil {
		return nil, cmp.Or(c.bad, err)
	}
	if len(m.Sockets) > len(c.files) {
		return nil, fmt.Errorf("%d descriptors were announced and %d came", len(m.Sockets), len(c.files))
	}
	return m, nil
}

// take returns the descriptors that came with a message, named as it says.
func (c *conn) take(names []string) []*os.File {
	out := make([]*os.File, len(names))
	for i, f := range c.files[:len(names)] {
		out[i] = rename(f, names[i])
	}
	c.files = c.files[len(names):]
	return out
}

// rename gives an open file another name.
func rename(f *os.File, name string) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return f // with its old name: it is for the log alone
	}
	f.Close()
	return os.NewFile(uintptr(fd), name)
}

// close ends the conversation, and what came with it and was not taken.
func (c *conn) close() {
	CloseAll(c.files)
	c.files = nil
	c.Close()
}

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// peer is who is at the other end, by the kernel's word at the time of the connect.
func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return nil, cerr
	}
	return cred, err
}
