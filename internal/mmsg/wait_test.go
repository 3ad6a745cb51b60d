//go:build linux

package mmsg

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWait(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	s, r := NewSender(8), NewReceiver(8, 64)
	from, fd, to := fdOf(t, a), fdOf(t, b), AddrFrom(local(b))
	if n, errno := r.Wait(fd, false); n != 0 || errno != syscall.EAGAIN { // not made ready
		t.Errorf("%d, %v", n, errno)
	}
	if errno := MakeWait(fd, time.Millisecond); errno != 0 {
		t.Fatal(errno)
	}
	defer func() { _ = unix.SetNonblock(fd, true) }() // for Close
	for _, many := range []bool{false, true} {
		waitTimeout(t, r, fd, many)
	}
	if errno := MakeWait(fd, 20*time.Second); errno != 0 {
		t.Fatal(errno)
	}
	for i := range 6 {
		s.Add(fmt.Appendf(make([]byte, 0, 100), "datagram %d %*d", i, 40*i%90+1, 0), &to)
	}
	if lost, err := s.Flush(from); lost > 0 {
		t.Fatal(err)
	}
	for got := 0; got < 6; {
		n, errno := r.Wait(fd, got >= 3)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 || n < 1 || got < 3 && n != 1 {
			t.Fatalf("%d datagrams, %v", n, errno)
		}
		for i := range n {
			want := fmt.Sprintf("datagram %d %*d", got, 40*got%90+1, 0)
			cut := len(want) > 64
			if text := string(r.Buf(i)[:r.Len(i)]); text != want[:min(len(want), 64)] || r.Truncated(i) != cut {
				t.Errorf("%q, truncated %v; want %q", text, r.Truncated(i), want)
			}
			if r.From(i).AddrPort() != local(a) {
				t.Errorf("from %v, want %v", r.From(i), local(a))
			}
			got++
		}
	}
	if n, errno := r.Recv(fd); n != 0 || errno != syscall.EAGAIN { // does not block
		t.Errorf("%d, %v", n, errno)
	}
}

func waitTimeout(t *testing.T, r *Receiver, fd int, many bool) {
	for {
		n, errno := r.Wait(fd, many)
		if errno == syscall.EINTR { // the scheduler's
			continue
		}
		if n != 0 || errno != syscall.EAGAIN {
			t.Errorf("many %v: %d, %v", many, n, errno)
		}
		return
	}
}
