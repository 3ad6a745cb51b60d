package wire

import "errors"

// Errors of AppendName.
var (
	ErrLabelTooLong = errors.New("label over 63 octets")
	ErrNameTooLong  = errors.New("name over 255 octets")
	ErrEmptyLabel   = errors.New("empty label")
	ErrBadEscape    = errors.New(`bad escape: want \DDD (000 to 255) or \X`)
)
