package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
)

// TestKeeperIsThere: who was told that we serve can talk to us: start comes back when the first attempt to listen is over,
// whether it worked or not.
func TestKeeperIsThere(t *testing.T) {
	for _, fails := range []bool{false, true} {
		attempts := 0
		k := newKeeper("test", "127.0.0.1:0", slog.New(slog.DiscardHandler), http.NotFoundHandler(), func() (net.Listener, error) {
			attempts++ // seen by the test without a lock once start has waited for it
			if fails {
				return nil, errors.New("in use")
			}
			return net.Listen("tcp", "127.0.0.1:0")
		})
		k.start()
		if attempts != 1 || k.addr().IsValid() == fails {
			t.Errorf("it fails: %v: %d attempts, listening on %v", fails, attempts, k.addr())
		}
		k.stop(context.Background())
	}
}
