package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a conversation: our end, and the other one, which says text, with so many descriptors, and then
// no more.
func pair(t *testing.T, text []byte, files int) *net.UnixConn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	other, done := ends[1], make(chan struct{})
	go func() {
		defer close(done)
		if files > 0 && len(text) > 0 {
			rights := make([]int, files)
			for i := range rights {
				rights[i] = 2
			}
			n, _, err := other.WriteMsgUnix(text, unix.UnixRights(rights...), nil)
			if err != nil {
				n = len(text)
			}
			text = text[n:]
		}
		_, _ = other.Write(text)
		_ = other.CloseWrite()
		_, _ = io.Copy(io.Discard, other)
	}()
	t.Cleanup(func() {
		ends[0].Close()
		<-done
		other.Close()
	})
	return ends[0]
}

// open counts this process's descriptors.
func open(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("skipped: no /proc here")
	}
	return len(fds)
}

// converse has a Giver talk with a successor that says text, and gives what the instance was asked to do.
func converse(t *testing.T, text []byte, files int) string {
	t.Helper()
	p := &played{state: `{}`, done: make(chan struct{})}
	g := &Giver{in: p, log: slog.New(slog.DiscardHandler)}
	g.ctx, g.cancel = context.WithCancel(t.Context())
	defer g.cancel()
	g.talk(newConn(pair(t, text, files), ofSuccessor))
	return p.all()
}

// takesOver tells, with the JSON library alone, whether a successor has said hello and that it serves.
func takesOver(text []byte) bool {
	if len(text) > ofSuccessor.octets {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var first, second message
	return d.Decode(&first) == nil && len(first.Sockets) == 0 && first.Hello != nil && first.Hello.Protocol == protocol &&
		d.Decode(&second) == nil && len(second.Sockets) == 0 && second.Serving
}

const goodHello = `{"hello":{"protocol":1,"version":"v","pid":7}}` + "\n"

// FuzzSuccessor: whatever a successor says, the instance is asked to leave only if it said that it
// serves, every offer has an end, and no descriptor is left.
func FuzzSuccessor(f *testing.F) {
	for _, text := range []string{"", goodHello, goodHello + `{"serving":true}`, goodHello + `{"serving":false}`, `{"serving":true}`,
		`{"hello":null}`, `{"hello":{"protocol":2}}`, goodHello + goodHello, goodHello + `{"sockets":["a"],"serving":true}`,
		"GET / HTTP/1.1\r\n\r\n", `{"hello":{"protocol":1e99}}`, goodHello[:20], `[]`, strings.Repeat("[", 20000), goodHello + `{"left":true}`} {
		f.Add([]byte(text), uint8(0))
	}
	f.Add([]byte(goodHello+`{"sockets":["x"],"serving":true}`), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, files uint8) {
		before := 0
		t.Run("", func(t *testing.T) { // its cleanup closes the pair
			before = open(t)
			got, want := converse(t, text, int(files)%8), "offer leave release released"
			switch {
			case got == want:
				if !takesOver(text) || files%8 > 0 && len(text) > 0 {
					t.Errorf("%q with %d descriptors: the instance has left", text, files%8)
				}
			case got != "" && got != "offer withdraw":
				t.Errorf("%q: %s", text, got)
			case takesOver(text) && files%8 == 0:
				t.Errorf("%q: the instance goes on: %q", text, got)
			}
		})
		eventually(t, "all descriptors are closed", func() bool { return open(t) <= before })
	})
}

// FuzzInstance: whatever an instance says, its successor has a whole state and as many sockets as were announced, or
// an error; it goes on only if the instance has left or is gone; no descriptor is left.
func FuzzInstance(f *testing.F) {
	for _, text := range []string{"", `{"state":{}}`, `{"state":{}}{"left":true}{"released":true}`, `{"state":{}}{"refused":"no"}`, `{"refused":"no"}`,
		`{"sockets":["a"]}{"state":{}}{"left":true}`, `{"sockets":["a","b"]}`, `{"left":true}`, `{"state":`, `{"state":1}{"serving":true}`,
		`{"sockets":[]}`, `{"sockets":["\u0000"]}{"state":{}}`, strings.Repeat(`{"sockets":["a"]}`, 9), `{"state":{}} nonsense`} {
		f.Add([]byte(text), uint8(0))
		f.Add([]byte(text), uint8(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, files uint8) {
		before := 0
		t.Run("", func(t *testing.T) {
			before = open(t)
			tk := &Takeover{c: newConn(pair(t, text, int(files)%8), ofInstance)}
			defer tk.Close()
			if err := tk.ask("next"); err != nil {
				return
			}
			if !json.Valid(tk.State) || len(tk.Files) > int(files)%8 {
				t.Errorf("%q: %d sockets, state %q", text, len(tk.Files), tk.State)
			}
			_ = tk.Serving()
			tk.Released(t.Context())
		})
		eventually(t, "all descriptors are closed", func() bool { return open(t) <= before })
	})
}

// A successor that never ends a message, or sends descriptors, is not listened to for long; the instance goes on, and
// nothing of it stays.
func TestHostileSuccessor(t *testing.T) {
	for name, c := range map[string]struct {
		text  []byte
		files int
	}{
		"an endless message":     {bytes.Repeat([]byte(" "), 4<<20), 0},
		"an endless word":        {append([]byte(`{"hello":{"version":"`), bytes.Repeat([]byte("x"), 4<<20)...), 0},
		"descriptors":            {[]byte(goodHello + `{"serving":true}`), 5},
		"descriptors, announced": {[]byte(strings.Replace(goodHello, "{", `{"sockets":["a","b"],`, 1) + `{"serving":true}`), 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := converse(t, c.text, c.files); got != "" {
				t.Errorf("the instance was asked: %s", got)
			}
		})
	}
}

// An instance that says too much, announces what it doesn't send, sends what it doesn't announce, or falls silent
// gets no successor.
func TestHostileInstance(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		files int
		of    limits
		want  string
	}{
		"an endless state":       {`{"state":"` + strings.Repeat("x", 1<<20), 0, limits{octets: 1 << 16}, "too much"},
		"many descriptors":       {`{"sockets":["a"]}`, 7, limits{octets: 1 << 16, files: 5}, "too many"},
		"sockets without an end": {strings.Repeat(`{"sockets":["a"]}`, 100), 7, ofInstance, "1 descriptors were announced and 0 came"},
		"fewer than announced":   {`{"sockets":["a","b","c"]}{"state":{}}`, 2, ofInstance, "3 descriptors were announced and 2 came"},
		"nothing known":          {`{"released":true}`, 0, ofInstance, "not understood"},
		"silence":                {`{"sockets":["a"]}`, 1, ofInstance, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			before := open(t)
			t.Run("", func(t *testing.T) {
				tk := &Takeover{c: newConn(pair(t, []byte(c.text), c.files), c.of)}
				defer tk.Close()
				if err := tk.ask("next"); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
			})
			eventually(t, "all descriptors are closed", func() bool { return open(t) <= before })
		})
	}
	// What was not announced is closed with the conversation; what the instance says after its state counts.
	tk := &Takeover{c: newConn(pair(t, []byte(`{"state":{}}{"refused":"changed my mind"}`), 3), ofInstance)}
	defer tk.Close()
	if err := tk.ask("next"); err != nil || len(tk.Files) != 0 {
		t.Fatalf("%v, %d sockets", err, len(tk.Files))
	}
	if err := tk.Serving(); err == nil || !strings.Contains(err.Error(), "changed my mind") {
		t.Errorf("it was refused, and goes on: %v", err)
	}
}
