package prober

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"hard/internal/config"
	"hard/internal/rank"
)

// maxBody is how much of a body is looked at (contract, section 2).
const maxBody = 64 << 10

// retryWait is the pause before an extra try inside one probe. It is short because all tries
// share the probe's timeout, and no part of any latency.
const retryWait = 20 * time.Millisecond

// httpRunner runs HTTP checks. go-retryablehttp drives the tries and net/http the redirects; the
// round trip below them is ours (transport.go). Immutable; one client serves all checks, as
// everything that differs travels in the probe, which is the request's context.
type httpRunner struct {
	client *retryablehttp.Client
}

func newHTTPRunner(n *network) *httpRunner {
	return &httpRunner{client: &retryablehttp.Client{
		HTTPClient: &http.Client{Transport: &transport{net: n}, CheckRedirect: checkRedirect},
		// The number of tries is the check's, see checkRetry.
		RetryMax:     1 << 30,
		CheckRetry:   checkRetry,
		Backoff:      backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}}
}

// check runs one HTTP or HTTPS probe; checkRetry has judged each try when it returns.
func (h *httpRunner) check(pr *probe) {
	req := retryablehttp.Request{Request: pr.prepared.request.WithContext(pr)}
	_, err := h.client.Do(&req)
	// Between two tries the client gives up by itself when the probe is aborted.
	if err != nil && pr.Err() != nil && pr.outcome() != rank.Aborted {
		pr.fail(context.Canceled)
	}
}

// checkRetry judges a try and says whether another one follows. It closes the body.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	pr := ctx.(*probe)
	if err != nil {
		pr.fail(err)
	} else {
		judge(pr, resp)
		resp.Body.Close()
		resp.Body = http.NoBody
	}
	again := pr.outcome() != rank.OK && pr.outcome() != rank.Aborted && pr.try < pr.check.Retries &&
		time.Until(pr.deadline) > 2*retryWait
	return again, nil
}

func backoff(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return retryWait }

// judge turns the reply to one try into its verdict.
func judge(pr *probe, resp *http.Response) {
	code := resp.StatusCode
	switch {
	case pr.note != "":
		pr.end(rank.Status, code, pr.note)
	case code == http.StatusTooManyRequests:
		// Alive, and busy: no reason to send clients away, but one to ask less often.
		pr.slow = true
		pr.end(rank.OK, code, "429 Too Many Requests: alive, probing slows down")
	case !statusWanted(pr.check.Status, code):
		pr.end(rank.Status, code, strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code))))
	case pr.check.Body == "":
		pr.end(rank.OK, code, "")
	default:
		judgeBody(pr, resp)
	}
}

func statusWanted(want []config.StatusRange, code int) bool {
	if len(want) == 0 {
		return code >= 200 && code <= 299
	}
	for _, r := range want {
		if code >= r.Low && code <= r.High {
			return true
		}
	}
	return false
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// judgeBody looks for the wanted text in the first 64 KiB and stops as soon as it is there.
func judgeBody(pr *probe, resp *http.Response) {
	buf := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buf)
	buf.Reset()
	found, err := readUntil(resp.Body, buf, []byte(pr.check.Body))
	switch {
	case found:
		pr.end(rank.OK, resp.StatusCode, "")
	case err == nil || err == io.EOF:
		pr.end(rank.Body, resp.StatusCode, fmt.Sprintf("%q is not in the first %d bytes of the body", pr.check.Body, buf.Len()))
	default:
		outcome, detail := classify(err, pr)
		pr.end(outcome, resp.StatusCode, detail)
	}
}

// readUntil reads into buf until it contains want, maxBody is reached (nil) or the source ends.
func readUntil(r io.Reader, buf *bytes.Buffer, want []byte) (bool, error) {
	for buf.Len() < maxBody {
		buf.Grow(4096)
		room := buf.AvailableBuffer()
		n, err := r.Read(room[:min(cap(room), maxBody-buf.Len())])
		from := max(0, buf.Len()-len(want)+1)
		buf.Write(room[:n])
		if bytes.Contains(buf.Bytes()[from:], want) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// checkRedirect follows redirects to the same address: to the host that was asked, by whatever
// scheme and port, or to the address itself. Another host's name may well be another address.
func checkRedirect(req *http.Request, via []*http.Request) error {
	pr := req.Context().(*probe)
	host := req.URL.Hostname()
	addr, err := netip.ParseAddr(host)
	same := strings.EqualFold(host, via[0].URL.Hostname()) || err == nil && addr.Unmap() == pr.addr
	switch {
	case !same:
		pr.note = fmt.Sprintf("redirect to another host, %q, is not followed", host)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		pr.note = fmt.Sprintf("redirect to %q is not followed", req.URL.Scheme)
	case len(via) > pr.check.Redirects:
		pr.note = fmt.Sprintf("more than %d redirects", pr.check.Redirects)
	default:
		if !keepsOrigin(pr, append(via[1:len(via):len(via)], req)) {
			req.Header = http.Header{"User-Agent": req.Header["User-Agent"]}
		}
		return nil
	}
	return http.ErrUseLastResponse
}

// keepsOrigin tells whether all requests that redirects led to go where the check's own goes: scheme,
// host and port. Elsewhere its headers, which may be secret, are not sent: not over plain HTTP when
// they were meant for TLS, not to what else listens at the address, and not on the way back, either.
func keepsOrigin(pr *probe, led []*http.Request) bool {
	first := pr.prepared.request.URL
	for _, r := range led {
		if r.URL.Scheme != first.Scheme || !strings.EqualFold(r.URL.Hostname(), first.Hostname()) || redirectPort(pr, r.URL) != port(pr.check) {
			return false
		}
	}
	return true
}

var errBodyClosed = errors.New("body is closed")
