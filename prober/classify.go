package prober

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"hard/internal/rank"
)

// verdictError is an error that knows its outcome.
type verdictError struct {
	outcome rank.Outcome
	detail  string
}

func (e *verdictError) Error() string { return e.detail }

// protocolError says that the peer does not speak what the check speaks.
func protocolError(format string, args ...any) error {
	return &verdictError{rank.Protocol, fmt.Sprintf(format, args...)}
}

// classify turns an error of a probe into its outcome and a line for a person.
func classify(err error, pr *probe) (rank.Outcome, string) {
	var v *verdictError
	if errors.As(err, &v) {
		return v.outcome, v.detail
	}
	if errors.Is(err, context.Canceled) {
		return rank.Aborted, "aborted"
	}
	var timeout net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout() {
		return rank.Timeout, "no " + pr.missing() + " within " + pr.timeout.String()
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return classifyErrno(errno, pr)
	}
	if text, ok := tlsProblem(err); ok {
		return rank.TLS, text
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if pr.missing() == "TLS handshake" {
			return rank.TLS, "connection closed in the TLS handshake"
		}
		return rank.Protocol, "connection closed before " + pr.missing()
	}
	return rank.Protocol, err.Error()
}

// missing names the phase that a probe is waiting for.
func (pr *probe) missing() string {
	switch {
	case pr.phases.Connect == 0 && usesTCP(pr.check):
		return "connection"
	case pr.phases.TLS == 0 && usesTLS(pr.check):
		return "TLS handshake"
	case pr.phases.FirstByte == 0:
		return "reply"
	}
	return "end of the reply"
}

// classifyErrno tells errors of the peer, of the network, and of our own host apart. What this
// host lacks (descriptors, memory, ports) is no fault of the candidate: the probe is skipped.
func classifyErrno(errno syscall.Errno, pr *probe) (rank.Outcome, string) {
	switch errno {
	case syscall.ECONNREFUSED:
		return rank.Refused, "connection refused"
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return rank.Reset, "connection reset before " + pr.missing()
	case syscall.ETIMEDOUT:
		return rank.Timeout, "no " + pr.missing() + ": the kernel gave up"
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.EADDRINUSE:
		return rank.Aborted, "skipped, this host is short of resources: " + errno.Error()
	case syscall.EADDRNOTAVAIL:
		// No local port is left; but an IPv6 address without IPv6, and a source address that
		// is not ours, look the same.
		if pr.addr.Is4() && !pr.check.Source.IsValid() {
			return rank.Aborted, "skipped, no local port is free"
		}
		return rank.Unreachable, "no local address to probe from"
	}
	return rank.Unreachable, errno.Error()
}

// tlsProblem says whether an error is one of TLS, and which in plain words.
func tlsProblem(err error) (string, bool) {
	var (
		verify  *tls.CertificateVerificationError
		invalid x509.CertificateInvalidError
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
		record  tls.RecordHeaderError
		alert   *net.OpError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		// Expired stands for both ends of the validity.
		return fmt.Sprintf("certificate valid only from %s to %s", invalid.Cert.NotBefore.UTC().Format("2006-01-02 15:04"), invalid.Cert.NotAfter.UTC().Format("2006-01-02 15:04")), true
	case errors.As(err, &invalid), errors.As(err, &host), errors.As(err, &unknown), errors.As(err, &verify):
		return err.Error(), true
	case errors.As(err, &record):
		return "peer does not speak TLS", true
	case errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error"):
		return alert.Op + ": " + alert.Err.Error(), true
	}
	text := err.Error()
	return text, strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ")
}
