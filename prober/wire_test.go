package prober

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/answer"
	"hard/internal/engine"
)

// The wide-area network once more, but with this kernel's TCP at both ends: a network namespace whose
// candidates are behind a TUN device. A goroutine forwards the packets to one server, as late as the
// world's script says or not at all.

const (
	wireHost   = "10.9.0.1" // both the prober and the server
	wirePort   = 80
	closedPort = 81 // nobody listens: what refuses is led there
)

// wan is the TUN device with the world behind it. Probes go from wireHost to 198.51.100.k. They
// are delivered to wireHost as if from 10.9.1.k, so that the replies come back here.
type wan struct {
	w   *world
	tun *os.File
}

// openWire makes the device in the present namespace, or skips the test.
func openWire(t *testing.T, w *world) *wan {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no TUN device: ", err)
	}
	ifr, err := unix.NewIfreq("wan0")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		t.Skip("no TUN device: ", err)
	}
	x := &wan{w, os.NewFile(uintptr(fd), "tun")}
	t.Cleanup(func() { x.tun.Close() })
	for _, line := range []string{"link set lo up", "addr add " + wireHost + "/16 dev wan0", "link set wan0 up", "route add 198.51.100.0/24 dev wan0"} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
			t.Skip(err)
		} else if err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	return x
}

// run forwards packets until the device is closed.
func (x *wan) run() {
	buf := make([]byte, 2048)
	for {
		n, err := x.tun.Read(buf)
		if err != nil {
			return
		}
		if p := buf[:n]; n >= 40 && p[0]>>4 == 4 && p[9] == unix.IPPROTO_TCP {
			x.forward(append([]byte(nil), p...))
		}
	}
}

// forward sends one packet on its way. Offsets are IPv4's and TCP's.
func (x *wan) forward(p []byte) {
	tcp := p[int(p[0]&15)*4:]
	toServer := p[16] == 198
	site := p[19]
	if !toServer && p[18] != 1 {
		return // not of ours
	}
	now := x.w.now(netip.AddrFrom4([4]byte{198, 51, 100, site}))
	payload := len(tcp) > int(tcp[12]>>4)*4
	switch {
	case now.ours, now.dead && now.how == silent, now.dead && now.how == hangs && !toServer && payload:
		return
	case now.loss > 0 && rand.Float64() < now.loss:
		return
	}
	if host := netip.MustParseAddr(wireHost).As4(); toServer {
		copy(p[12:], []byte{10, 9, 1, site})
		copy(p[16:], host[:])
		if now.dead && now.how == refuses {
			binary.BigEndian.PutUint16(tcp[2:], closedPort)
		}
	} else {
		copy(p[12:], []byte{198, 51, 100, site})
		copy(p[16:], host[:])
		if binary.BigEndian.Uint16(tcp) == closedPort {
			binary.BigEndian.PutUint16(tcp, wirePort)
		}
	}
	checksums(p, tcp)
	time.AfterFunc(now.delay/2, func() { x.tun.Write(p) })
}

// checksums makes both anew.
func checksums(p, tcp []byte) {
	head := p[:len(p)-len(tcp)]
	head[10], head[11] = 0, 0
	binary.BigEndian.PutUint16(head[10:], sum16(0, head))
	tcp[16], tcp[17] = 0, 0
	pseudo := binary.BigEndian.AppendUint16(append(append([]byte(nil), p[12:20]...), 0, unix.IPPROTO_TCP), uint16(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], sum16(^sum16(0, pseudo), tcp))
}

// sum16 is the Internet checksum (RFC 1071) of b, continued from an earlier sum.
func sum16(start uint16, b []byte) uint16 {
	sum := uint32(start)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// wireScript is 38 s of trouble: the nearest site refuses and comes back, its region falls silent, and our
// own network is cut; all the time packets are lost on the way to a region that nobody is sent to.
func wireScript() []trouble {
	near := []netip.Addr{siteAddr(0, 0)}
	return []trouble{
		{from: 4 * time.Second, to: 9 * time.Second, what: refuses, hits: near},
		{from: 22 * time.Second, to: 29 * time.Second, what: silent, hits: region(0)},
		{from: 30 * time.Second, to: 37 * time.Second, what: cut},
		{from: 0, to: time.Hour, what: lossy, by: 0.1, hits: region(3)},
	}
}

// TestAnswersOnAWire: the real prober over real TCP. Times are for the eye; what must come out is
// that deaths are noticed, our own cut is not taken for deaths, and the answer lives in the end.
func TestAnswersOnAWire(t *testing.T) {
	if os.Getenv("HARD_LONG") == "" {
		t.Skip("takes 38 s; set HARD_LONG=1")
	}
	if !inNamespace(t) {
		return
	}
	w := &world{sites: map[netip.Addr]*site{}, script: wireScript(), rng: rand.New(rand.NewPCG(1, 1))}
	for r := range regions {
		for i := range 2 {
			a := siteAddr(r, i)
			w.sites[a] = &site{addr: a, region: regions[r].name, rtt: regions[r].rtt + time.Duration(i)*time.Millisecond}
		}
	}
	x := openWire(t, w)
	l, err := net.Listen("tcp", wireHost+":80")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, reply(okReply))
	const long = 38 * time.Second
	out := &result{answers: map[string][]change{}}
	w.begin, out.begin = time.Now(), time.Now()
	go x.run()
	c := qualityConfig(t, "")
	sink := &engineSink{}
	p := New(Options{Sink: sink})
	see := &witness{out, new(answer.Counters).NewRotor()}
	sink.e, err = engine.New(engine.Options{
		Config: c, Publisher: see, Prober: engineProber{p}, Recorder: see, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	sink.e.Start()
	time.Sleep(long) // the script's time
	if err := p.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	sink.e.Stop()
	var sum score
	for i := range c.Names {
		n := &c.Names[i]
		list := out.answers[n.Name]
		s := w.judge(qualityNames()[n.Name], list, long, n.Policy)
		for _, c := range list {
			t.Logf("%s: %v at %v", n.Name, c.addr, c.at.Round(time.Millisecond))
		}
		if last := list[len(list)-1]; !last.addr.IsValid() || w.at(long-time.Second, last.addr).dead {
			t.Errorf("%s: the last answer is %v", n.Name, last)
		}
		sum.add(&s)
	}
	_, rw, _, rn := sum.spells(refuses)
	_, sw, _, sn := sum.spells(silent)
	t.Logf("answered on while refusing: %d, up to %v; while silent: %d, up to %v; %d switches, %d needless",
		rn, rw.Round(time.Millisecond), sn, sw.Round(time.Millisecond), sum.switches, sum.needless)
	if rn == 0 || sn == 0 {
		t.Errorf("%d deaths by refusal, %d silent ones were answered: the wire does nothing", rn, sn)
	}
	if sum.moved > 0 {
		t.Errorf("%d answers changed because our own network was cut", sum.moved)
	}
}

// inNamespace runs the test in a child process with a network namespace of its own. It returns true
// in the child; in the parent the child's result is the test's.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "PROBER_TEST_NETNS"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skip("no network namespace here: ", err)
	}
	t.Logf("in the namespace:\n%s", out)
	switch {
	case err != nil:
		t.Error(err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skip("skipped in the namespace")
	}
	return false
}
