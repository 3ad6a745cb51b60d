package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"hard/internal/bug"
)

// Bounds of both servers. Their clients are people, scripts and one metrics collector.
const (
	requestTime  = 60 * time.Second // one whole request; a probe may take its whole timeout
	headerTime   = 5 * time.Second
	idleTime     = 2 * time.Minute
	maxHeader    = 16 << 10 // octets
	maxConns     = 64
	retryFirst   = time.Second // between two attempts to listen ...
	retryLongest = 30 * time.Second
	firstWait    = time.Second // for the first attempt; it takes less than a millisecond, but on a file system that hangs

	// A stop is short: those behind it, the answers on their way and the history, need the time.
	stopPatience = 300 * time.Millisecond // after which running requests are told to end
	stopTime     = time.Second            // after which they are cut off
)

// keeper keeps one HTTP server listening: what can't be listened on is logged and tried again,
// with a growing pause, until it works or stop is called.
type keeper struct {
	// immutable
	what    string // for the log: "control socket" or "http"
	address string // as configured
	listen  func() (net.Listener, error)
	log     *slog.Logger
	server  *http.Server
	retry   time.Duration // the first pause

	ctx     context.Context // ends the attempts
	cancel  context.CancelFunc
	base    context.Context // of every request
	endBase context.CancelFunc
	tried   chan struct{} // closed after the first attempt
	done    chan struct{}

	mu sync.Mutex
	at net.Addr // nil while not listening; guarded by mu
}

// survives answers 500 where a handler panics, which is a bug of ours, and tells of it.
func survives(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				bug.Note(log, v, "an answer over HTTP", "path", r.URL.Path)
				http.Error(w, "a bug of hard's, see its log", http.StatusInternalServerError)
			}
		}()
		bug.Here("http")
		h.ServeHTTP(w, r)
	})
}

func newKeeper(what, address string, log *slog.Logger, h http.Handler, listen func() (net.Listener, error)) *keeper {
	k := &keeper{
		what: what, address: address, listen: listen, log: log, retry: retryFirst,
		tried: make(chan struct{}), done: make(chan struct{}),
		server: &http.Server{
			Handler:           survives(log, h),
			ReadHeaderTimeout: headerTime,
			ReadTimeout:       requestTime,
			WriteTimeout:      requestTime,
			IdleTimeout:       idleTime,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.base, k.endBase = context.WithCancel(context.Background())
	k.server.BaseContext = func(net.Listener) context.Context { return k.base }
	return k
}

// start returns when the first attempt to listen is over, so that who was told that we serve finds us, but no later than
// after firstWait.
func (k *keeper) start() {
	go k.run()
	select {
	case <-k.tried:
	case <-time.After(firstWait):
	}
}

// run listens and serves until stop.
func (k *keeper) run() {
	defer close(k.done)
	tried := sync.OnceFunc(func() { close(k.tried) })
	defer tried()
	pause, said := k.retry, ""
	for {
		l, err := k.listen()
		if err == nil {
			if said != "" {
				k.log.Info(k.what+" is there now", "address", k.address)
			}
			pause, said = k.retry, ""
			k.set(l.Addr())
			tried()
			err = k.server.Serve(l)
			k.set(nil)
		}
		if errors.Is(err, http.ErrServerClosed) || k.ctx.Err() != nil {
			return
		}
		if said != err.Error() {
			said = err.Error()
			k.log.Error("no "+k.what+", trying again; answers are not affected", "address", k.address, "error", err)
		}
		tried()
		select {
		case <-k.ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, retryLongest)
		}
	}
}

func (k *keeper) set(a net.Addr) {
	k.mu.Lock()
	k.at = a
	k.mu.Unlock()
}

// addr is the TCP address listened on, invalid while there is none.
func (k *keeper) addr() netip.AddrPort {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a, ok := k.at.(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// stop takes no more requests, waits for those that run, but no longer than stopTime or until ctx
// ends, and joins run.
func (k *keeper) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	k.cancel()
	defer k.endBase()
	defer time.AfterFunc(stopPatience, k.endBase).Stop()
	if err := k.server.Shutdown(ctx); err != nil {
		_ = k.server.Close()
	}
	<-k.done
}
